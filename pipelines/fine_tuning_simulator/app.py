"""The fine-tuning endpoints of a host, over a world."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fine_tuning_simulator.messages import Answer, Request, default_error, error_body, json_answer, no_such_cursor
from fine_tuning_simulator.profiles import Profile

log = logging.getLogger(__name__)

JOBS_SCOPE = "api.fine_tuning.jobs.read"
"""The scope that a key needs to read jobs, checkpoints and events."""
FILES_SCOPE = "api.files.read"
"""The scope that a key needs to read files."""
MODELS_SCOPE = "api.model.read"
"""The scope that a key needs to list models."""

OLDEST_VERSION = "2024-08-01"
"""The first `api-version` of Azure with checkpoints."""

ApiKeys = Mapping[str, frozenset[str]]
"""Each accepted key, and the scopes that it lacks."""

_FILES_A_PAGE = 10_000
_NOT_FOUND_ON_AZURE = {"error": {"code": "404", "message": "Resource not found"}}


class World(Protocol):
    """The records that a host shows at this moment, as they are sent and in the host's order."""

    page_limit: int | None
    """The largest page, whatever `limit` asks for; None for no such bound."""

    def jobs(self) -> Sequence[Any]:
        """Return all jobs."""
        ...

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return one job, or None if no job has this id."""
        ...

    def checkpoints(self, job_id: str) -> Sequence[Any] | None:
        """Return the checkpoints that the host lists for a job, or None if it has no such listing."""
        ...

    def events(self, job_id: str) -> Sequence[Any] | None:
        """Return the events of a job so far, or None if the host has no such listing."""
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

    def models(self) -> Sequence[Any] | None:
        """Return the models that can be called, or None if the host has no such listing."""
        ...


class _RefusedError(Exception):
    """A request that ends in an error answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Api:
    """The API of a host.

    Args:
        world: What the host shows.
        profile: How the host behaves.
        api_keys: Each accepted key, and the scopes that it lacks; None to accept any key that is not empty.
    """

    def __init__(self, world: World, profile: Profile, api_keys: ApiKeys | None) -> None:
        self._world = world
        self._profile = profile
        self._api_keys = api_keys
        endpoints: dict[str, tuple[Callable[..., Answer], str]] = {
            "/fine_tuning/jobs": (self._list_jobs, JOBS_SCOPE),
            "/fine_tuning/jobs/([^/]+)": (self._job, JOBS_SCOPE),
            "/fine_tuning/jobs/([^/]+)/checkpoints": (self._list_checkpoints, JOBS_SCOPE),
            "/fine_tuning/jobs/([^/]+)/events": (self._list_events, JOBS_SCOPE),
            "/files": (self._list_files, FILES_SCOPE),
            "/files/([^/]+)": (self._file, FILES_SCOPE),
            "/files/([^/]+)/content": (self._file_content, FILES_SCOPE),
            "/models": (self._list_models, MODELS_SCOPE),
        }
        bases = "|".join(filter(None, (profile.base_path, *profile.other_paths, profile.classic_path)))
        self._routes = {re.compile(f"(?:{bases}){path}"): endpoint for path, endpoint in endpoints.items()}

    def answer(self, request: Request) -> Answer:
        """Answer a request. A world that fails gives a 500, and is logged."""
        try:
            return self._answer(request)
        except _RefusedError as refused:
            return json_answer(refused.body, refused.status)
        except Exception:
            log.exception("the simulator failed on %s", request.path)
            return json_answer(default_error(500), 500)

    def _answer(self, request: Request) -> Answer:
        for pattern, (endpoint, scope) in self._routes.items():
            if (match := pattern.fullmatch(request.path)) is not None:
                self._check_key(request.key, scope)
                if request.method not in ("GET", "HEAD"):
                    message = f"Not allowed to {request.method} on {request.path}."
                    raise _RefusedError(405, error_body(message, code="method_not_supported"))
                self._check_version(request)
                return endpoint(request, *match.groups())
        self._check_key(request.key, "")
        raise _RefusedError(404, _NOT_FOUND_ON_AZURE if self._profile.has_azure_errors else _invalid_url(request))

    def _check_key(self, key: str, scope: str) -> None:
        """Raise the 401 for a key that is missing, unknown or lacks the scope."""
        known = bool(key) and (self._api_keys is None or key in self._api_keys)
        if not known and self._profile.has_azure_errors:
            message = "Access denied: the key is not valid for this resource."
            raise _RefusedError(401, {"error": {"code": "401", "message": message}})
        if not key:
            message = "No API key was provided: send it in the header, as Authorization: Bearer YOUR_KEY."
            raise _RefusedError(401, error_body(message))
        if not known:
            masked = f"{key[:8]}****" if len(key) > 16 else "****"
            raise _RefusedError(401, error_body(f"Incorrect API key provided: {masked}.", code="invalid_api_key"))
        if self._api_keys is not None and scope in self._api_keys[key]:
            message = f"You have insufficient permissions for this operation. Missing scopes: {scope}"
            raise _RefusedError(401, error_body(message))

    def _check_version(self, request: Request) -> None:
        """Raise the error for an `api-version` that Azure does not take at this path."""
        classic = self._profile.classic_path
        if classic is None:
            return
        version = request.query.get("api-version")
        is_dated = version is not None and re.match(r"\d{4}-\d\d-\d\d", version) is not None
        if request.path.startswith(f"{classic}/v1/") or not request.path.startswith(f"{classic}/"):
            if is_dated:
                raise _RefusedError(400, {"error": {"code": "BadRequest", "message": "API version not supported"}})
        elif version is None or not is_dated or version < OLDEST_VERSION:
            raise _RefusedError(404, _NOT_FOUND_ON_AZURE)

    def _list_jobs(self, request: Request) -> Answer:
        records = self._world.jobs()
        wanted = {k[9:-1]: v for k, v in request.query.items() if k.startswith("metadata[") and k[-1] == "]"}
        if wanted:
            records = [record for record in records if _has_metadata(record, wanted)]
        elif request.query.get("metadata") == "null":
            records = [record for record in records if isinstance(record, dict) and not record.get("metadata")]
        return self._page(request, records, 20)

    def _job(self, _request: Request, job_id: str) -> Answer:
        return json_answer(_found(self._world.job(job_id), _no_such_job(job_id)))

    def _list_checkpoints(self, request: Request, job_id: str) -> Answer:
        records = self._of_job(request, job_id, self._world.checkpoints)
        return self._page(request, records, 10, named_ends=self._profile.lists_name_their_ends)

    def _list_events(self, request: Request, job_id: str) -> Answer:
        return self._page(request, self._of_job(request, job_id, self._world.events), 20)

    def _list_files(self, request: Request) -> Answer:
        order = request.query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise _RefusedError(400, error_body(f"'{order}' is not one of ['asc', 'desc'] - 'order'"))
        purpose = request.query.get("purpose")
        records = [
            record
            for record in self._world.files()
            if purpose is None or (isinstance(record, dict) and record.get("purpose") == purpose)
        ]
        named_ends = self._profile.lists_name_their_ends
        in_order = records if order == "desc" else records[::-1]
        return self._page(request, in_order, _FILES_A_PAGE, most=_FILES_A_PAGE, named_ends=named_ends)

    def _file(self, _request: Request, file_id: str) -> Answer:
        return json_answer(_found(self._world.file(file_id), _no_such_file(file_id)))

    def _file_content(self, request: Request, file_id: str) -> Answer:
        content = _found(self._world.file_content(file_id), _no_such_file(file_id))
        return _part(content, request.headers.get("range", ""))

    def _list_models(self, request: Request) -> Answer:
        # No host pages this listing.
        return json_answer({"object": "list", "data": list(_found(self._world.models(), _invalid_url(request)))})

    def _of_job(self, request: Request, job_id: str, listing: Callable[[str], Sequence[Any] | None]) -> Sequence[Any]:
        has_job = self._world.job(job_id) is not None
        error = _invalid_url(request) if has_job else _no_such_job(job_id)
        records: Sequence[Any] = _found(listing(job_id), error)
        return records

    def _page(
        self,
        request: Request,
        records: Sequence[Any],
        usual: int,
        most: int | None = None,
        named_ends: bool = False,
    ) -> Answer:
        size = _limit(request.query.get("limit"), usual, most)
        if self._world.page_limit is not None:
            size = min(size, self._world.page_limit)
        start = _start(records, request.query.get("after"))
        data = list(records[start : start + size])
        page: dict[str, Any] = {"object": "list", "data": data, "has_more": start + size < len(records)}
        if named_ends:
            page["first_id"] = _id(data[0]) if data else None
            page["last_id"] = _id(data[-1]) if data else None
        return json_answer(page)


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
    """Return the place behind the record with the id `after`; behind the last one if several have it."""
    if after is None:
        return 0
    for position in range(len(records) - 1, -1, -1):
        found = _id(records[position])
        if found == after or (found is not None and not isinstance(found, str) and str(found) == after):
            return position + 1
    raise _RefusedError(404, no_such_cursor(after))


def _part(content: bytes, asked: str) -> Answer:
    """Return the bytes that a `Range` header asks for; all of them if it is missing or cannot be read."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.strip())
    headers = {"content-type": "application/octet-stream", "accept-ranges": "bytes"}
    if found is None:
        return Answer(200, content, headers)
    start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    if start > end:
        return Answer(416, b"", {"content-range": f"bytes */{len(content)}"})
    headers["content-range"] = f"bytes {start}-{end}/{len(content)}"
    return Answer(206, content[start : end + 1], headers)


def _id(record: Any) -> Any:
    return record.get("id") if isinstance(record, dict) else None


def _has_metadata(record: Any, wanted: dict[str, str]) -> bool:
    metadata = record.get("metadata") if isinstance(record, dict) else None
    return isinstance(metadata, dict) and all(metadata.get(key) == value for key, value in wanted.items())


def _invalid_url(request: Request) -> dict[str, Any]:
    return error_body(f"Invalid URL ({request.method} {request.path})")


def _no_such_job(job_id: str) -> dict[str, Any]:
    return error_body(f"Could not find fine tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found")


def _no_such_file(file_id: str) -> dict[str, Any]:
    return error_body(f"No such File object: {file_id}", param="id")
