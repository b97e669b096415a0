"""Requests and answers of the simulated host, and errors in OpenAI's form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_DEFAULT_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request could not be understood."),
    401: ("invalid_request_error", "invalid_api_key", "The API key is not valid."),
    403: ("invalid_request_error", None, "This project may not do that."),
    404: ("invalid_request_error", None, "There is no such object."),
    408: ("server_error", None, "The request took too long."),
    409: ("invalid_request_error", None, "Another request holds this object: please try again."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests per minute: please slow down."),
}


@dataclass
class Request:
    """A request that the simulator received."""

    method: str
    path: str
    query: dict[str, str]
    status: int | None
    """The status of the answer; None while there is none."""
    key: str
    """The credential as it came, or an empty string."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """The headers as they came, with lower-case names."""


@dataclass
class Answer:
    """An answer before it is sent. The server adds `Date`, `Content-Length` and a request id."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return an answer of ASCII JSON; NaN, lone surrogates and huge integers are written as Python writes them."""
    body = json.dumps(value, ensure_ascii=True, allow_nan=True, separators=(",", ":")).encode("ascii")
    return Answer(status, body, {"content-type": "application/json"})


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


def no_such_cursor(after: str) -> dict[str, Any]:
    """Return the error object for an `after` that is not in the listing."""
    return error_body(f"No object is called '{after}' - 'after'", param="after")


def credential(headers: Mapping[str, str], *, accepts_api_key_header: bool) -> str:
    """Return the key of a request, or an empty string; the names in `headers` are lower-case."""
    if accepts_api_key_header and headers.get("api-key", "").strip():
        return headers["api-key"].strip()
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
