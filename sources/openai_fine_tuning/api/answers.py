"""Read an answer: it is a record, a page of a listing, a file, or else an error, whatever its status is."""

from __future__ import annotations

import codecs
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from requests.utils import get_encoding_from_headers
from urllib3 import BaseHTTPResponse as Response

from . import retry
from .decoding import parse_json
from .retry import AttemptError

_ERRORS = ("error", "errors", "fault", "exception")
_MESSAGES = ("message", "msg", "faultstring")
_FAILED = frozenset({"error", "fail", "failed", "failure"})
"""Names and words, in lower case, by which APIs and gateways say that an answer is an error."""
_SUCCESS = re.compile(
    r"^\W*(ok|okay|done|(request|query) (ok|done))\b|(?<!un)(?<!not )succe(ss|ed)|成功", re.IGNORECASE
)
_CODE_OF_SUCCESS = re.compile(r"|None|True|0+|1|2[0-9]{2}|2[0-9]{2}00|ok|success", re.IGNORECASE)
"""Words and codes by which services say that all is well."""

_JSON_NAMES = {type(None): "null", list: "an array", dict: "an object", str: "a string"}


def page_of_records(body: bytes, response: Response) -> dict[str, Any]:
    """Return a page of a listing: `data` is an array, and no error is beside it. Raises `AttemptError`."""
    found = _json(body, response)
    is_error = _holds_error(found)
    if isinstance(found, dict) and isinstance(found.get("data"), list) and not is_error:
        return found
    if is_error:
        what = "it says that it is an error"
    elif isinstance(found, dict):
        what = f"`data` is {_json_name(found['data'])}" if "data" in found else "`data` is missing"
    else:
        what = f"it is {_json_name(found)}"
    raise _unexpected(response, found, f"something that is not a listing: {what}")


def record(body: bytes, response: Response) -> dict[str, Any]:
    """Return a single record: an object with an id. Its `error` is a field of the record. Raises `AttemptError`."""
    found = _json(body, response)
    if isinstance(found, dict) and found.get("id") not in (None, "") and found.get("object") != "error":
        return found
    raise _unexpected(response, found, "something that is not a record with an id")


def file_content(body: bytes, response: Response) -> bytes:
    """Return a file as it is. Raises `AttemptError` if an error, a web page or nothing came instead."""
    raise_if_page(body, response)
    if response.status not in (200, 203):  # but 202 (not yet), 204 (no content) or 206 (a part)
        raise _unexpected(response, None, "no file")
    try:
        found = parse_json(body) if _first_character(body) == b"{" else None
    except ValueError:
        return body  # lines of JSON
    if _holds_error(found) or error_in(found)[1]:
        raise _unexpected(response, found, "an error")
    return body


def raise_if_page(body: bytes, response: Response) -> None:
    """Raise `AttemptError` if a body begins as a page of HTML, which proxies send instead of an answer."""
    if _first_character(body) == b"<":
        words = f"a web page ({_kind(response)}) in its place: {_start(body)!r}"
        raise _unexpected(response, None, words, retries=retry.ODD_RETRIES, about="page")


def event_stream(start: bytes, response: Response) -> AttemptError:
    """Return the error for a stream in a page's place."""
    return _unexpected(response, None, f"{_kind(response)} instead of JSON: {_start(start)!r}", retries=0, about="page")


def error_in(body: Any) -> tuple[str | None, str]:
    """Return the code and the message of the error that a JSON body holds; (None, "") if it holds none."""
    if not isinstance(body, dict):
        return None, ""
    fields = _lower_case(body)
    error = next((fields[name] for name in (*_ERRORS, "detail", *_MESSAGES) if _says(fields.get(name))), None)
    if isinstance(error, list):
        error = error[0]
    error = _lower_case(error) if isinstance(error, dict) else {"message": error}
    code = error.get("code") or fields.get("code")
    message = next((error[name] for name in (*_MESSAGES, "error") if error.get(name)), None)
    if isinstance(error.get("loc"), list):  # FastAPI names the parameter that it misses
        message = f"{message} ({'.'.join(map(str, error['loc']))})"
    return None if code is None else _one_line(code, 100), "" if message is None else _one_line(message, 300)


def _one_line(words: Any, length: int) -> str:
    # The words of a host with line breaks could pass for lines of this program.
    return " ".join(str(words).split())[:length]


def status_error(url: str, path: str, body: bytes, response: Response) -> AttemptError:
    """Return the error that a status says which is not one of success.

    Args:
        url: The address that answered.
        path: What was asked for, below the base URL.
        body: The answer's body.
        response: The answer.
    """
    status, headers = response.status, response.headers
    try:
        code, words = error_in(parse_json(body, get_encoding_from_headers(response.headers)))
        about = _about(path, code, words)
    except ValueError:
        code, words, about = None, "", "endpoint"
    named = f" ({code})" if code and code != str(status) else ""
    is_regional = re.search("incorrect_hostname|incorrect regional hostname", f"{code} {words}", re.IGNORECASE)
    return AttemptError(
        f"answered {status}{named}{f': {words}' if words else ''}",
        retries=None if retry.should_retry(status, headers, code) else 0,
        wait=retry.retry_after(headers),
        status=status,
        code=code,
        detail=words,
        about=about,
        expected_host=_expected_host(words, urlsplit(url).hostname or "") if is_regional else None,
    )


def _about(path: str, code: str | None, words: str) -> str:
    """Return what an error is about (see `RequestError.about`)."""
    if words == "Not Found" or re.search(r"\b(url|endpoint|route)\b", words.lower()):
        return "endpoint"
    ids = [unquote(part) for part in path.split("/") if part not in ("", "fine_tuning", "jobs", "files", "content")]
    named = any(part in words for part in ids[:1]) or (code or "").endswith("_not_found")
    return "object" if named else "unclear"


def _expected_host(words: str, host: str) -> str | None:
    """Return the host that a message names instead of this one, if it is OpenAI's or a neighbour of this one."""
    domains = (".openai.com", "." + ".".join(host.split(".")[-2:]))
    named: list[str] = re.findall(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", words)
    return next((name for name in named if name.lower().endswith(domains) and name.lower() != host), None)


def _json(body: bytes, response: Response) -> Any:
    if not body.strip():
        raise _unexpected(response, None, "an empty body")
    try:
        return parse_json(body, get_encoding_from_headers(response.headers))
    except ValueError:
        raise_if_page(body, response)
        # What begins as JSON may have been cut off on its way. Other text does not change by waiting.
        details = {} if _first_character(body) in (b"{", b"[") else {"retries": retry.ODD_RETRIES, "about": "page"}
        words = f"{_kind(response)} that is not JSON: {_start(body)!r}"
        raise _unexpected(response, None, words, **details) from None


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), "a number")


def _kind(response: Response) -> str:
    return response.headers.get("content-type", "no content type")[:60]


def _start(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")[:60]


def _says(value: Any) -> bool:
    """Return whether a value beside the data names an error: `null`, `{}` and objects of nulls do not."""
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _holds_error(body: Any) -> bool:
    """Return whether an answer says, in one of the ways that APIs and gateways have, that it is an error."""
    if not isinstance(body, dict):
        return False
    fields = _lower_case(body)
    codes = [str(fields.get(name, "")) for name in ("code", "status", "statuscode", "status_code")]
    return (
        any(_says(fields.get(name)) for name in _ERRORS)
        or any(fields.get(name) is False for name in ("success", "ok"))
        or any(fields.get(name) == "error" for name in ("object", "type"))
        or any(re.fullmatch("[45][0-9]{2}", code) for code in codes)
        or _holds_failure(fields, codes[0])
    )


def _holds_failure(fields: dict[str, Any], code: str) -> bool:
    """Return whether a status, or a code of a service, says that there are no records because something failed.

    A host may send the status of a job beside its records, and each service has codes of its own for success.
    """
    message = next((str(fields[name]) for name in (*_MESSAGES, "detail") if _says(fields.get(name))), "")
    is_without_records = not fields.get("data")
    if any(str(fields.get(name)).lower() in _FAILED for name in ("status", "state")):
        return is_without_records or bool(message)
    is_failure = message and not _SUCCESS.search(message) and not _CODE_OF_SUCCESS.fullmatch(code)
    return is_without_records and bool(is_failure)


def _lower_case(fields: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in fields.items()}


def _first_character(body: bytes) -> bytes:
    return body[:1000].removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _unexpected(response: Response, body: Any, what: str, **details: Any) -> AttemptError:
    code, words = error_in(body)
    if code or words:
        what = f"an error{f' ({code})' if code else ''}: {words}"
    status, retries = response.status, 0 if code == "insufficient_quota" else None
    details = {"status": status, "code": code, "detail": what, "retries": retries, **details}
    return AttemptError(f"answered {status} with {what}", **details)
