"""The routes: the fine-tuning endpoints of a host, over a world."""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fine_tuning_simulator.access import FILES_SCOPE, JOBS_SCOPE, credential, refusal
from fine_tuning_simulator.errors import default_error, error_body
from fine_tuning_simulator.profiles import Profile
from fine_tuning_simulator.world import World

log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Response]
ApiKeys = Mapping[str, frozenset[str]]

_JOBS_A_PAGE = 20
_CHECKPOINTS_A_PAGE = 10
_EVENTS_A_PAGE = 20
_FILES_A_PAGE = 10_000


RESOURCE_NOT_FOUND = {"error": {"code": "404", "message": "Resource not found"}}
"""What Azure says of a path, and of a version that it does not know."""

OLDEST_VERSION = "2024-08-01"
"""The first `api-version` whose fine-tuning has checkpoints."""


class RefusedError(Exception):
    """A request that ends in an error answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def encoded(value: Any) -> bytes:
    """JSON as the simulator sends it: ASCII, and whatever Python can write (NaN, lone surrogates, huge integers)."""
    return json.dumps(value, ensure_ascii=True, allow_nan=True, separators=(",", ":")).encode("ascii")


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(encoded(value), status, media_type="application/json")


def make_app(world: World, profile: Profile, api_keys: ApiKeys | None) -> Starlette:
    """The host's API over `world`."""
    api = _Api(world, profile)

    def route(path: str, endpoint: Endpoint, scope: str) -> Route:
        async def respond(request: Request) -> Response:
            refused = refusal(credential(request.headers, profile), scope, api_keys, profile)
            if refused is not None:
                return answer(refused, 401)
            try:
                refuse_version(request, profile)
                return endpoint(request)
            except RefusedError as problem:
                return answer(problem.body, problem.status)

        return Route(path, respond, methods=["GET"])

    async def no_such_url(request: Request, problem: Exception) -> Response:
        refused = refusal(credential(request.headers, profile), "", api_keys, profile)
        if refused is not None:
            return answer(refused, 401)
        status = problem.status_code if isinstance(problem, HTTPException) else 404
        if status == 405:
            text = f"Not allowed to {request.method} on {request.url.path}."
            return answer(error_body(text, code="method_not_supported"), 405)
        return answer(RESOURCE_NOT_FOUND if profile.refuses_as_azure else _invalid_url(request), 404)

    async def broken(request: Request, problem: Exception) -> Response:
        log.error("the simulator failed on %s", request.url.path, exc_info=problem)
        return answer(default_error(500), 500)

    handlers: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        404: no_such_url,
        405: no_such_url,
        Exception: broken,
    }
    bases = [profile.base_path, *profile.other_paths, *([profile.classic_path] if profile.classic_path else [])]
    endpoints = (
        ("/fine_tuning/jobs", api.list_jobs, JOBS_SCOPE),
        ("/fine_tuning/jobs/{job_id}", api.job, JOBS_SCOPE),
        ("/fine_tuning/jobs/{job_id}/checkpoints", api.list_checkpoints, JOBS_SCOPE),
        ("/fine_tuning/jobs/{job_id}/events", api.list_events, JOBS_SCOPE),
        ("/files", api.list_files, FILES_SCOPE),
        ("/files/{file_id}", api.file, FILES_SCOPE),
        ("/files/{file_id}/content", api.file_content, FILES_SCOPE),
    )
    app = Starlette(
        routes=[route(base + path, endpoint, scope) for base in bases for path, endpoint, scope in endpoints],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False
    return app


def refuse_version(request: Request, profile: Profile) -> None:
    """Raise `RefusedError` where the `api-version` is not one that Azure's fine-tuning takes at this path."""
    if profile.classic_path is None:
        return
    version = request.query_params.get("api-version")
    is_dated = version is not None and re.match(r"\d{4}-\d\d-\d\d", version) is not None
    if request.url.path.startswith(f"{profile.classic_path}/v1/") or not request.url.path.startswith(
        f"{profile.classic_path}/"
    ):
        if is_dated:
            raise RefusedError(400, {"error": {"code": "BadRequest", "message": "API version not supported"}})
    elif version is None or not is_dated or version < OLDEST_VERSION:
        raise RefusedError(404, RESOURCE_NOT_FOUND)


class _Api:
    """One method an endpoint."""

    def __init__(self, world: World, profile: Profile) -> None:
        self._world = world
        self._profile = profile

    def list_jobs(self, request: Request) -> Response:
        records = self._world.jobs()
        wanted = {k[9:-1]: v for k, v in request.query_params.items() if k.startswith("metadata[") and k[-1] == "]"}
        if wanted:
            records = [record for record in records if _has_metadata(record, wanted)]
        elif request.query_params.get("metadata") == "null":
            records = [record for record in records if isinstance(record, dict) and not record.get("metadata")]
        return self._page(request, records, _JOBS_A_PAGE)

    def job(self, request: Request) -> Response:
        record = self._world.job(request.path_params["job_id"])
        if record is None:
            raise RefusedError(404, _no_such_job(request))
        return answer(record)

    def list_checkpoints(self, request: Request) -> Response:
        records = self._child(request, self._world.checkpoints)
        return self._page(request, records, _CHECKPOINTS_A_PAGE, named_ends=self._profile.lists_name_their_ends)

    def list_events(self, request: Request) -> Response:
        return self._page(request, self._child(request, self._world.events), _EVENTS_A_PAGE)

    def list_files(self, request: Request) -> Response:
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise RefusedError(400, error_body(f"'{order}' is not one of ['asc', 'desc'] - 'order'"))
        records = self._world.files()
        purpose = request.query_params.get("purpose")
        if purpose is not None:
            records = [record for record in records if isinstance(record, dict) and record.get("purpose") == purpose]
        if order == "asc":
            records = records[::-1]
        named_ends = self._profile.lists_name_their_ends
        return self._page(request, records, _FILES_A_PAGE, most=_FILES_A_PAGE, named_ends=named_ends)

    def file(self, request: Request) -> Response:
        record = self._world.file(request.path_params["file_id"])
        if record is None:
            raise RefusedError(404, _no_such_file(request))
        return answer(record)

    def file_content(self, request: Request) -> Response:
        content = self._world.file_content(request.path_params["file_id"])
        if content is None:
            raise RefusedError(404, _no_such_file(request))
        return _part(content, request.headers.get("range", ""))

    def _child(self, request: Request, listing: Callable[[str], Sequence[Any] | None]) -> Sequence[Any]:
        job_id = request.path_params["job_id"]
        records = listing(job_id)
        if records is not None:
            return records
        if self._world.job(job_id) is None:
            raise RefusedError(404, _no_such_job(request))
        raise RefusedError(404, _invalid_url(request))

    def _page(
        self,
        request: Request,
        records: Sequence[Any],
        usual: int,
        most: int | None = None,
        named_ends: bool = False,
    ) -> Response:
        size = _limit(request.query_params.get("limit"), usual, most)
        if self._world.page_limit is not None:
            size = min(size, self._world.page_limit)
        start = _start(records, request.query_params.get("after"))
        data = list(records[start : start + size])
        page: dict[str, Any] = {"object": "list", "data": data, "has_more": start + size < len(records)}
        if named_ends:
            page["first_id"] = _id(data[0]) if data else None
            page["last_id"] = _id(data[-1]) if data else None
        return answer(page)


def _limit(text: str | None, usual: int, most: int | None) -> int:
    if text is None:
        return usual
    try:
        number = int(text)
    except ValueError:
        raise RefusedError(400, error_body(f"'{text}' is not of type 'integer' - 'limit'")) from None
    if number < 1:
        raise RefusedError(400, error_body(f"{number} is less than the minimum of 1 - 'limit'"))
    if most is not None and number > most:
        raise RefusedError(400, error_body(f"{number} is greater than the maximum of {most} - 'limit'"))
    return number


def _start(records: Sequence[Any], after: str | None) -> int:
    """Where the page after the record called `after` begins; after the last of them if it stands there twice."""
    if after is None:
        return 0
    for position in range(len(records) - 1, -1, -1):
        found = _id(records[position])
        if found == after or (found is not None and not isinstance(found, str) and str(found) == after):
            return position + 1
    raise RefusedError(404, error_body(f"No object is called '{after}' - 'after'", param="after"))


def _part(content: bytes, asked: str) -> Response:
    """The bytes that a `Range` header asks for, all of them where there is none that is understood."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.strip())
    headers = {"accept-ranges": "bytes"}
    if found is None:
        return Response(content, media_type="application/octet-stream", headers=headers)
    start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    if start > end:
        return Response(status_code=416, headers={"content-range": f"bytes */{len(content)}"})
    headers["content-range"] = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], 206, media_type="application/octet-stream", headers=headers)


def _id(record: Any) -> Any:
    return record.get("id") if isinstance(record, dict) else None


def _has_metadata(record: Any, wanted: dict[str, str]) -> bool:
    metadata = record.get("metadata") if isinstance(record, dict) else None
    return isinstance(metadata, dict) and all(metadata.get(key) == value for key, value in wanted.items())


def _invalid_url(request: Request) -> dict[str, Any]:
    return error_body(f"Invalid URL ({request.method} {request.url.path})")


def _no_such_job(request: Request) -> dict[str, Any]:
    text = f"Could not find fine tune: {request.path_params['job_id']}"
    return error_body(text, param="fine_tune_id", code="fine_tune_not_found")


def _no_such_file(request: Request) -> dict[str, Any]:
    return error_body(f"No such File object: {request.path_params['file_id']}", param="id")
