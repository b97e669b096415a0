"""The routes: the fine-tuning endpoints of a host, over a world."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fine_tuning_simulator.profiles import Profile

log = logging.getLogger(__name__)

JOBS_SCOPE = "api.fine_tuning.jobs.read"
"""The scope that a key needs to read jobs, checkpoints and events."""
FILES_SCOPE = "api.files.read"
"""The scope that a key needs to read files."""

OLDEST_VERSION = "2024-08-01"
"""The first `api-version` of Azure with checkpoints."""

ApiKeys = Mapping[str, frozenset[str]]
"""Each accepted key, and the scopes that it lacks."""

_FILES_A_PAGE = 10_000
_NOT_FOUND_ON_AZURE = {"error": {"code": "404", "message": "Resource not found"}}
_DEFAULT_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request could not be understood."),
    401: ("invalid_request_error", "invalid_api_key", "The API key is not valid."),
    403: ("invalid_request_error", None, "This project may not do that."),
    404: ("invalid_request_error", None, "There is no such object."),
    408: ("server_error", None, "The request took too long."),
    409: ("invalid_request_error", None, "Another request holds this object: please try again."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests per minute: please slow down."),
}


class World(Protocol):
    """What a host shows at this moment: records as they are sent, in the host's order."""

    page_limit: int | None
    """The largest page, whatever `limit` asks for; None for no such bound."""

    def jobs(self) -> Sequence[Any]:
        """Return all jobs."""
        ...

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return one job, or None where there is none of that id."""
        ...

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        """Return the checkpoints that are listed of a job, or None where there is no such listing."""
        ...

    def events(self, job_id: str) -> Sequence[Any] | None:
        """Return the events of a job so far, or None where there is no such listing."""
        ...

    def files(self) -> Sequence[Any]:
        """Return all files, newest first."""
        ...

    def file(self, file_id: str) -> dict[str, Any] | None:
        """Return the description of a file, or None."""
        ...

    def file_content(self, file_id: str) -> bytes | None:
        """Return the bytes of a file as the host sends them, or None."""
        ...


class _RefusedError(Exception):
    """A request that ends in an error answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def error_body(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return an error object in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def default_error(status: int, code: str | None = None, message: str | None = None) -> dict[str, Any]:
    """Return the usual error object of a status; the `code` `insufficient_quota` has its own type and message."""
    server_error = ("server_error", None, "The server had an error while it processed the request.")
    kind, usual_code, text = _DEFAULT_ERRORS.get(status, server_error)
    if code == "insufficient_quota":
        kind, text = code, "This organization has used up its quota: please check the plan and the billing details."
    return error_body(message or text, kind, code=code or usual_code)


def encoded(value: Any) -> bytes:
    """Return a value as ASCII JSON; NaN, lone surrogates and huge integers are written as Python writes them."""
    return json.dumps(value, ensure_ascii=True, allow_nan=True, separators=(",", ":")).encode("ascii")


def credential(headers: Mapping[str, str], profile: Profile) -> str:
    """Return the key of a request, or an empty string; the names in `headers` are lower-case."""
    if profile.accepts_api_key_header and headers.get("api-key", "").strip():
        return headers["api-key"].strip()
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def make_app(world: World, profile: Profile, api_keys: ApiKeys | None) -> Starlette:
    """Return the API of a host over a world."""
    api = _Api(world, profile)

    def route(path: str, endpoint: Callable[[Request], Response], scope: str) -> Route:
        async def respond(request: Request) -> Response:
            try:
                _check_key(credential(request.headers, profile), scope, api_keys, profile)
                _check_version(request, profile)
                return endpoint(request)
            except _RefusedError as refused:
                return _answer(refused.body, refused.status)

        return Route(path, respond, methods=["GET"])

    async def no_such_url(request: Request, error: Exception) -> Response:
        try:
            _check_key(credential(request.headers, profile), "", api_keys, profile)
        except _RefusedError as refused:
            return _answer(refused.body, refused.status)
        if isinstance(error, HTTPException) and error.status_code == 405:
            message = f"Not allowed to {request.method} on {request.url.path}."
            return _answer(error_body(message, code="method_not_supported"), 405)
        return _answer(_NOT_FOUND_ON_AZURE if profile.has_azure_errors else _invalid_url(request), 404)

    async def broken(request: Request, error: Exception) -> Response:
        log.error("the simulator failed on %s", request.url.path, exc_info=error)
        return _answer(default_error(500), 500)

    endpoints = (
        ("/fine_tuning/jobs", api.list_jobs, JOBS_SCOPE),
        ("/fine_tuning/jobs/{job_id}", api.job, JOBS_SCOPE),
        ("/fine_tuning/jobs/{job_id}/checkpoints", api.list_checkpoints, JOBS_SCOPE),
        ("/fine_tuning/jobs/{job_id}/events", api.list_events, JOBS_SCOPE),
        ("/files", api.list_files, FILES_SCOPE),
        ("/files/{file_id}", api.file, FILES_SCOPE),
        ("/files/{file_id}/content", api.file_content, FILES_SCOPE),
    )
    bases = [profile.base_path, *profile.other_paths, *([profile.classic_path] if profile.classic_path else [])]
    app = Starlette(
        routes=[route(base + path, endpoint, scope) for base in bases for path, endpoint, scope in endpoints],
        exception_handlers={404: no_such_url, 405: no_such_url, Exception: broken},
    )
    app.router.redirect_slashes = False
    return app


def _answer(value: Any, status: int = 200) -> Response:
    return Response(encoded(value), status, media_type="application/json")


def _check_key(key: str, scope: str, api_keys: ApiKeys | None, profile: Profile) -> None:
    """Raise the 401 for a key that is missing, unknown or lacks the scope."""
    known = bool(key) and (api_keys is None or key in api_keys)
    if not known and profile.has_azure_errors:
        message = "Access denied: the key is not valid for this resource."
        raise _RefusedError(401, {"error": {"code": "401", "message": message}})
    if not key:
        message = "No API key was provided: send it in the header, as Authorization: Bearer YOUR_KEY."
        raise _RefusedError(401, error_body(message))
    if not known:
        masked = f"{key[:8]}****" if len(key) > 16 else "****"
        raise _RefusedError(401, error_body(f"Incorrect API key provided: {masked}.", code="invalid_api_key"))
    if api_keys is not None and scope in api_keys[key]:
        message = f"You have insufficient permissions for this operation. Missing scopes: {scope}"
        raise _RefusedError(401, error_body(message))


def _check_version(request: Request, profile: Profile) -> None:
    """Raise the error for an `api-version` that Azure does not take at this path."""
    if profile.classic_path is None:
        return
    version = request.query_params.get("api-version")
    is_dated = version is not None and re.match(r"\d{4}-\d\d-\d\d", version) is not None
    path = request.url.path
    if path.startswith(f"{profile.classic_path}/v1/") or not path.startswith(f"{profile.classic_path}/"):
        if is_dated:
            raise _RefusedError(400, {"error": {"code": "BadRequest", "message": "API version not supported"}})
    elif version is None or not is_dated or version < OLDEST_VERSION:
        raise _RefusedError(404, _NOT_FOUND_ON_AZURE)


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
        return self._page(request, records, 20)

    def job(self, request: Request) -> Response:
        return _answer(_found(self._world.job(request.path_params["job_id"]), _no_such_job(request)))

    def list_checkpoints(self, request: Request) -> Response:
        records = self._of_job(request, self._world.checkpoints)
        return self._page(request, records, 10, named_ends=self._profile.lists_name_their_ends)

    def list_events(self, request: Request) -> Response:
        return self._page(request, self._of_job(request, self._world.events), 20)

    def list_files(self, request: Request) -> Response:
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise _RefusedError(400, error_body(f"'{order}' is not one of ['asc', 'desc'] - 'order'"))
        purpose = request.query_params.get("purpose")
        records = [
            record
            for record in self._world.files()
            if purpose is None or (isinstance(record, dict) and record.get("purpose") == purpose)
        ]
        named_ends = self._profile.lists_name_their_ends
        in_order = records if order == "desc" else records[::-1]
        return self._page(request, in_order, _FILES_A_PAGE, most=_FILES_A_PAGE, named_ends=named_ends)

    def file(self, request: Request) -> Response:
        return _answer(_found(self._world.file(request.path_params["file_id"]), _no_such_file(request)))

    def file_content(self, request: Request) -> Response:
        content = _found(self._world.file_content(request.path_params["file_id"]), _no_such_file(request))
        return _part(content, request.headers.get("range", ""))

    def _of_job(self, request: Request, listing: Callable[[str], Sequence[Any] | None]) -> Sequence[Any]:
        job_id = request.path_params["job_id"]
        has_job = self._world.job(job_id) is not None
        records: Sequence[Any] = _found(listing(job_id), _invalid_url(request) if has_job else _no_such_job(request))
        return records

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
        return _answer(page)


def _found(value: Any, otherwise: dict[str, Any]) -> Any:
    if value is None:
        raise _RefusedError(404, otherwise)
    return value


def _limit(text: str | None, usual: int, most: int | None) -> int:
    if text is None:
        return usual
    try:
        number = int(text)
    except ValueError:
        raise _RefusedError(400, error_body(f"'{text}' is not of type 'integer' - 'limit'")) from None
    if number < 1:
        raise _RefusedError(400, error_body(f"{number} is less than the minimum of 1 - 'limit'"))
    if most is not None and number > most:
        raise _RefusedError(400, error_body(f"{number} is greater than the maximum of {most} - 'limit'"))
    return number


def _start(records: Sequence[Any], after: str | None) -> int:
    """Return the place behind the record with the id `after`; behind the last one where several have it."""
    if after is None:
        return 0
    for position in range(len(records) - 1, -1, -1):
        found = _id(records[position])
        if found == after or (found is not None and not isinstance(found, str) and str(found) == after):
            return position + 1
    raise _RefusedError(404, error_body(f"No object is called '{after}' - 'after'", param="after"))


def _part(content: bytes, asked: str) -> Response:
    """Return the bytes that a `Range` header asks for; all of them where it is missing or cannot be read."""
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
