"""Error answers, in the shape of the hosts."""

from typing import Any

_DEFAULTS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request could not be understood."),
    401: ("invalid_request_error", "invalid_api_key", "The API key is not valid."),
    403: ("invalid_request_error", None, "This project may not do that."),
    404: ("invalid_request_error", None, "There is no such object."),
    408: ("server_error", None, "The request took too long."),
    409: ("invalid_request_error", None, "Another request holds this object: please try again."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests per minute: please slow down."),
}
_QUOTA = "This organization has used up its quota: please check the plan and the billing details."


def error_body(
    message: str,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def default_error(status: int, code: str | None = None, message: str | None = None) -> dict[str, Any]:
    """The error object that fits a status; a `code` of `insufficient_quota` brings its own type and text."""
    kind, usual_code, text = _DEFAULTS.get(
        status, ("server_error", None, "The server had an error while it processed the request.")
    )
    if code == "insufficient_quota":
        kind, text = "insufficient_quota", _QUOTA
    return error_body(message or text, kind, code=code or usual_code)
