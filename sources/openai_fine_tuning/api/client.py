"""The client of the API: one connection pool, one limiter and one set of retry rules for every request."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from typing_extensions import Self

from openai_fine_tuning import settings
from openai_fine_tuning.errors import ConfigurationError, HostError, RequestError
from openai_fine_tuning.settings import RequestPolicy

from . import decoding, retry
from .auth import Credential, TokenProvider, checked_headers, checked_id, chosen_scheme
from .concurrency import Limiter
from .connection import Adapter, Pace, Session, SlowAnswerError, pace
from .decoding import LargeAnswerError, WrongAnswerError, WrongEncodingError
from .download import Download, MisplacedRangeError
from .redaction import Redactor
from .urls import checked_url, is_loopback, origin, redirect_target

MAX_REDIRECTS = 3
ODD_RETRIES = 2
"""Retries after a web page or a very slow answer, which waiting hardly changes."""

logger = logging.getLogger("openai_fine_tuning")

_TRANSPORT_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    EOFError,
)
_UNREACHABLE = ("Connection refused", "Name or service not known", "No route to host", "Network is unreachable")
_REASONS = {
    "ReadTimeout": "it stayed silent for too long",
    "ReadTimeoutError": "it stayed silent for too long",
    "IncompleteRead": "the connection ended too early",
    "EOFError": "the compressed body ended too early",
    "InvalidProxyURL": "the address of the proxy is not valid",
    "InvalidURL": "the address, or that of the proxy, is not valid",
    "InvalidSchema": "a proxy of this kind (SOCKS) needs the package PySocks",
}
"""Where the operating system has no word for it."""

_MAX_ERROR_BYTES = 100_000
"""How much is read of an answer that only matters for its words."""


@dataclass(frozen=True)
class Answer:
    """A whole answer: its content, and the host's time in unix seconds when it was sent."""

    content: Any
    host_time: float


@dataclass
class _Request:
    """One request with all its attempts.

    Attributes:
        path: What follows the base URL.
        params: The query.
        parse: Makes the content of the body and its charset; raises `WrongAnswerError` or ValueError.
        headers: Headers of this request only.
        oddities: Attempts that failed in a way that waiting hardly changes.
    """

    path: str
    params: Mapping[str, Any]
    parse: Callable[[bytes, str | None], Any]
    headers: dict[str, str] = field(default_factory=lambda: {"Accept-Encoding": "gzip, deflate"})
    oddities: int = 0


class FineTuningApi:
    """The read side of one host, as one key sees it. Safe to share between threads; close it, or use it as a context.

    Example:
        with FineTuningApi("https://api.openai.com/v1", key) as api:
            jobs = api.get_page("/fine_tuning/jobs", {"limit": 1}).content["data"]

    Args:
        base_url: For example `https://api.openai.com/v1`; a query (`?api-version=...`) goes with every request.
        api_key: The key, or a function that returns a token. It goes to this host only, over https (loopback excepted).
        auth: How it is sent: `bearer`, `api-key`, or None for what the host takes.
        org_id: Sent as `OpenAI-Organization`.
        project_id: Sent as `OpenAI-Project`.
        extra_headers: Sent to this host with every request. They are secrets, as the key is.
        allow_http: Whether plain http may go to another machine, which shows the key to anyone on the way.
        concurrency: The highest number of requests in flight; None for the default.
        policy: Timeouts, retries, and bounds on answers.

    Raises:
        ConfigurationError: One of them cannot be right.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | TokenProvider,
        *,
        auth: str | None = None,
        org_id: str | None = None,
        project_id: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        allow_http: bool = False,
        concurrency: int | None = None,
        policy: RequestPolicy | None = None,
    ) -> None:
        self.base_url, self._query = checked_url(base_url, allow_http=allow_http)
        self.limiter = Limiter(settings.CONCURRENCY if concurrency is None else concurrency)
        self.requests = 0
        self.retries = 0
        self._policy = policy or RequestPolicy()
        self._answers = 0
        self._counting = threading.Lock()
        parts = urlsplit(self.base_url)
        host, uses_tls = parts.hostname or "", parts.scheme == "https"
        self._is_exposed = not uses_tls and not is_loopback(host)
        self._redactor = Redactor()
        extra = checked_headers(extra_headers, self._redactor)
        chosen = {
            "OpenAI-Organization": checked_id(org_id, "org_id", "organisation"),
            "OpenAI-Project": checked_id(project_id, "project_id", "project"),
            **dict(sorted(extra.items())),
        }
        try:
            self._origin = origin(requests.Request("GET", self.base_url).prepare().url or "")
        except ValueError:
            raise ConfigurationError("The base URL has a host name that cannot be one.", setting="base_url") from None
        self._credential = Credential(
            api_key,
            chosen_scheme(auth, host=host, is_token=callable(api_key)),
            allowed=self._origin,
            headers={name: value for name, value in chosen.items() if value},
            redactor=self._redactor,
        )
        self._session = Session()
        # The environment is asked once: requests goes through all of it at each request. What is on this machine is
        # reached directly, whatever proxy it names for the world.
        self._session.trust_env = False
        if not is_loopback(host):
            self._session.proxies.update(get_environ_proxies(self.base_url))
        self._session.auth = self._credential
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"Accept": "application/json", "User-Agent": "fine-tuning-warehouse"})
        self._session.mount(f"{parts.scheme}://", Adapter(self.limiter.concurrency, uses_tls=uses_tls))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def identity(self) -> str:
        """A fingerprint of host, credential and headers (16 hex digits): whose history this is.

        On loopback the port does not count.

        Raises:
            HostError: The credential is a token, and none can be had.
        """
        parts = urlsplit(self.base_url)
        port = "" if is_loopback(parts.hostname or "") else f":{parts.port or ''}"
        asked = f"{parts.hostname}{port}{parts.path}\n{self._credential.owner}"
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def url(self, path: str) -> str:
        """Return the address of a path without its query: what error messages name."""
        return self.base_url + path

    def get_json(self, path: str, params: Mapping[str, Any] | None = None, *, attempts: int | None = None) -> Answer:
        """Request a single record, such as a job or a file. The content is a dict with an id.

        Args:
            path: What follows the base URL, ids quoted.
            params: The query.
            attempts: How often the request is sent at the most; by default as the policy says.

        Raises:
            RequestError: It failed for good. An error in an answer with status 200 is one, too.
            HostError: It failed in a way that concerns every request.
            CancelledError: The sync was stopped.
        """
        return self._get(path, params, lambda body, charset: decoding.record(_json(body, charset)), attempts)

    def get_page(self, path: str, params: Mapping[str, Any] | None = None, *, attempts: int | None = None) -> Answer:
        """Request a page of a listing. The content is a dict whose `data` is a list. See `get_json`."""
        return self._get(path, params, lambda body, charset: decoding.page_of_records(_json(body, charset)), attempts)

    def get_bytes(self, path: str) -> Answer:
        """Request a file's content, as bytes. Raises as `get_json` does."""
        return self._get(path, None, lambda body, _: decoding.file_content(body), None)

    def download(
        self, path: str, file: BinaryIO, *, size: int | None = None, watch: Callable[[int], None] | None = None
    ) -> int:
        """Write a file's content as it comes, however large. Raises as `get_json` does.

        Where the connection breaks, the download goes on from there if the host takes ranges, else from the start. It
        is given up only after several attempts that got no further than those before.

        Args:
            path: What follows the base URL, ids quoted.
            file: Empty, open for reading and writing.
            size: Bytes that it must have in the end; None where that is not known.
            watch: Called for every piece with the bytes that came; a negative number where it starts again.

        Returns:
            The size of the file in bytes.
        """
        download = Download(file, size, watch)
        request = _Request(path, self._query, lambda body, _: body)
        self._repeat(
            lambda: self._attempt_download(request, download),
            is_over=lambda _: download.failures >= self._policy.max_attempts,
            attempt=lambda _: download.failures,
        )
        return download.position

    def close(self) -> None:
        """Let no request start any more, and close the connections."""
        self.limiter.cancel()
        self._session.close()

    # attempts --------------------------------------------------------------------------------------------------------

    def _get(
        self,
        path: str,
        params: Mapping[str, Any] | None,
        parse: Callable[[bytes, str | None], Any],
        attempts: int | None,
    ) -> Answer:
        request = _Request(path, {**self._query, **(params or {})}, parse)
        most = attempts or self._policy.max_attempts
        answer: Answer = self._repeat(
            lambda: self._attempt(request), is_over=lambda state: state.attempt_number >= most
        )
        return answer

    def _repeat(
        self,
        attempt_once: Callable[[], Any],
        *,
        is_over: Callable[[RetryCallState], bool],
        attempt: Callable[[RetryCallState], int] = lambda state: state.attempt_number,
    ) -> Any:
        """Make attempts until one succeeds, fails for good, or `is_over`."""

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, _TransientError) else None
            return retry.backoff(attempt(state), self._policy) if asked is None else asked

        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=is_over,
            wait=wait,
            sleep=self._sleep_and_count,
            reraise=True,
        )
        try:
            return retrying(attempt_once)
        except _TransientError as error:
            raise error.failure from None

    def _attempt(self, request: _Request) -> Answer:
        limit = int(self._policy.max_answer_megabytes * 1_000_000)
        response = None
        try:
            with self.limiter.slot():
                response = self._send(request.path, request.params, request.headers, self._policy.answer_seconds)
                self._check(request, response)
                body = self._redactor.body(decoding.read_body(response, limit))
            content = request.parse(body, response.encoding)
        except LargeAnswerError:
            what = f"answered with more than {self._policy.max_answer_megabytes:g} MB"
            raise self._exceeded(request, what, "fine_tuning_max_answer_megabytes") from None
        except WrongAnswerError as error:
            raise self._wrong_answer(request, error, response) from None
        except (*_TRANSPORT_ERRORS, SlowAnswerError, WrongEncodingError) as error:
            raise self._transport_failure(request, error, response) from None
        finally:
            if response is not None:
                response.close()
        self._succeeded()
        return Answer(content, self._host_time(response))

    def _attempt_download(self, request: _Request, download: Download) -> None:
        """Make one attempt at the rest of a file."""
        response = None
        try:
            with self.limiter.slot():
                response = self._send(request.path, request.params, download.headers, None)
                if response.status_code == 416 and download.position:
                    wrong = download.wrong_size or "does not go on where it broke off"
                    download.start_again()
                    raise _TransientError(self._error(request, wrong, response, detail=wrong))
                self._check(request, response)
                for piece in download.pieces(response):
                    if download.is_page(response, piece):
                        raise decoding.web_page(piece)
                    download.write(piece)
                    self.limiter.raise_if_cancelled()
            if (wrong_size := download.wrong_size) is not None:
                raise _TransientError(self._error(request, wrong_size, response, detail=wrong_size))
        except WrongAnswerError as error:
            raise self._wrong_answer(request, error, response) from None
        except MisplacedRangeError as error:
            raise _TransientError(self._error(request, str(error), response)) from None
        except (*_TRANSPORT_ERRORS, SlowAnswerError, WrongEncodingError) as error:
            if error is download.write_error:
                raise
            raise self._transport_failure(request, error, response) from None
        finally:
            if response is not None:
                response.close()
            if download.has_advanced():
                with self._counting:
                    self._answers += 1
        self.limiter.succeeded()

    def _send(
        self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], seconds: float | None
    ) -> requests.Response:
        """Send a request, and again after a redirect within the host or with a new token. Returns the streamed answer.

        Args:
            path: What follows the base URL.
            params: The query.
            headers: Headers of this request only.
            seconds: How long the answer may take; None for no bound.
        """
        if self._is_exposed:
            self._is_exposed = False
            logger.warning("%s is plain http: anyone on the way can read the key (openai_allow_http).", self.base_url)
        bounds = self._policy
        window = max(bounds.rate_window, bounds.read_timeout)
        target, query, is_renewed, redirects = self.url(path), dict(params), False, 0
        while True:
            with self._counting:
                self.requests += 1
            pace.set(Pace(float("inf") if seconds is None else seconds, bounds.min_bytes_per_second, window))
            response = self._session.get(
                target,
                params=query,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=(min(bounds.read_timeout, bounds.connect_timeout), bounds.read_timeout),
            )
            if response.status_code == 401 and not is_renewed and self._credential.renew(response.request):
                is_renewed = True
            elif response.is_redirect and redirects < MAX_REDIRECTS:
                try:
                    target, query = redirect_target(response.headers["location"], url=response.url), {}
                    is_followed = origin(target) == self._origin
                except ValueError:
                    is_followed = False
                if not is_followed:
                    return response
                redirects += 1
            else:
                return response
            response.close()

    # failures --------------------------------------------------------------------------------------------------------

    def _check(self, request: _Request, response: requests.Response) -> None:
        """Raise what the status and the headers of an answer mean, unless they promise what was asked for."""
        if (reset := retry.exhausted_for(response.headers)) is not None:
            self.limiter.close_for(min(reset, self._policy.max_retry_after))
        if not 200 <= response.status_code < 300:
            raise self._status_failure(request, response)
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            try:
                start = response.raw.read1(200, decode_content=False)  # the rest may never end
            except (*_TRANSPORT_ERRORS, SlowAnswerError):
                start = b""
            what = f"answered with text/event-stream instead of JSON: {self._beginning(start)!r}"
            raise self._error(request, what, response, about="page")

    def _status_failure(self, request: _Request, response: requests.Response) -> Exception:
        """Return the error that a status means: one worth another attempt, or a final one."""
        status, headers = response.status_code, response.headers
        if response.is_redirect:
            return self._error(request, self._redirect_words(response), response)
        code, words, about = self._error_body(request.path, response)
        named = f" ({code})" if code and code != str(status) else ""
        error = self._error(
            request, f"answered {status}{named}{f': {words}' if words else ''}", response, code=code, detail=words
        )
        error.about = about
        if status in (401, 403, 421) and re.search(
            "incorrect_hostname|incorrect regional hostname", f"{code} {words}", re.IGNORECASE
        ):
            error.expected_host = _expected_host(words, urlsplit(self.base_url).hostname or "")
        if code == "insufficient_quota":
            return HostError(f"{error}. The quota is used up; waiting does not help. Check plan and billing.")
        if not retry.should_retry(status, headers, code):
            return error
        wait = retry.retry_after(headers)
        if wait is not None and wait > self._policy.max_retry_after:
            return HostError(
                f"{error.url} answered {status} and asks to wait {wait:.0f} s, more than the "
                f"{self._policy.max_retry_after:.0f} s that a sync waits. Run it again later."
            )
        if status == 429:
            self.limiter.throttled()
            if wait:
                self.limiter.close_for(wait)
        return _TransientError(error, wait)

    def _redirect_words(self, response: requests.Response) -> str:
        location = response.headers["location"]
        try:
            target = redirect_target(location, url=response.url)
            if origin(target) == self._origin:
                return f"redirects more than {MAX_REDIRECTS} times"
        except ValueError as error:
            start = self._redactor.text(location[:200])[:60].encode("ascii", "backslashreplace").decode()
            return f"redirects to an address that is not followed, since {error}: {start!r}"
        host = self._redactor.text(urlsplit(target).hostname or "")
        return f"redirects to {host}, and the key is not sent there. If that is your host, set it as base URL."

    def _error_body(self, path: str, response: requests.Response) -> tuple[str | None, str, str]:
        """Return the code and the words of an error body, and what they are about (see `RequestError.about`)."""
        try:
            body = decoding.parse_json(self._start_of(response), response.encoding)
        except ValueError:
            return None, "", "endpoint"
        code, words = decoding.error_in(body)
        code, words = self._redactor.text(code)[:100] if code else None, self._redactor.text(words)[:300]
        if words == "Not Found" or re.search(r"\b(url|endpoint|route)\b", words.lower()):
            return code, words, "endpoint"
        ids = [unquote(part) for part in path.split("/") if part not in ("", "fine_tuning", "jobs", "files", "content")]
        named = any(part in words for part in ids[:1]) or (code or "").endswith("_not_found")
        return code, words, "object" if named else "unclear"

    def _wrong_answer(
        self, request: _Request, error: WrongAnswerError, response: requests.Response | None
    ) -> Exception:
        """Return the error of an answer that is good by its status, and not what was asked for."""
        code, words = error.code, self._redactor.text(error.words)
        status = response.status_code if response is not None else None
        kind = response.headers.get("content-type", "no content type")[:60] if response is not None else ""
        words = words.replace("{kind}", self._redactor.text(kind))
        failure = self._error(request, f"answered {status} with {words}", response, code=code, detail=words)
        failure.about = "page" if error.is_page else "unclear"
        if code == "insufficient_quota":
            return HostError(f"{failure}. The quota is used up; waiting does not help. Check plan and billing.")
        return self._odd(request, failure) if error.is_page else _TransientError(failure)

    def _transport_failure(
        self, request: _Request, error: BaseException, response: requests.Response | None
    ) -> Exception:
        """Return the error of an answer that did not come whole."""
        if isinstance(error, SlowAnswerError):
            return self._odd(request, self._exceeded(request, str(error), error.setting))
        if isinstance(error, WrongEncodingError):
            kind = response.headers.get("content-type", "no content type")[:60] if response is not None else ""
            failure = self._error(request, f"answered with {kind} that {error}", response, about="page")
            if request.headers.get("Accept-Encoding") == "identity":
                return failure
            request.headers["Accept-Encoding"] = "identity"
            return _TransientError(failure, 0.0)
        detail = self._redactor.text(_reason(error))
        if isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower():
            return HostError(f"The certificate of {self.base_url} could not be verified: {detail}")
        is_unsent = isinstance(error, ValueError)  # an address that requests refuses
        is_reached = detail not in _UNREACHABLE and not isinstance(
            error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError, ValueError)
        )
        what = "gave no whole answer" if is_reached else "could not be reached"
        failure = self._error(request, f"{what}: {detail}", None, detail=detail)
        return failure if is_unsent or detail == _TOO_MANY_HEADERS else _TransientError(failure)

    def _odd(self, request: _Request, failure: RequestError) -> Exception:
        """Return a failure that waiting hardly changes: it gets few attempts."""
        request.oddities += 1
        return failure if request.oddities > ODD_RETRIES else _TransientError(failure)

    def _exceeded(self, request: _Request, what: str, setting: str) -> RequestError:
        return self._error(request, f"{what}, the bound on one answer; {setting} lifts it", None, setting=setting)

    def _error(self, request: _Request, what: str, response: requests.Response | None, **details: Any) -> RequestError:
        url = self.url(request.path)
        status = None if response is None else response.status_code
        return RequestError(f"{url} {what}", url=url, status=status, **details)

    def _start_of(self, response: requests.Response) -> bytes:
        """Return the start of a body whose words matter, as far as it can be read."""
        body = b""
        try:
            for piece in decoding.pieces(response):
                body += piece
                if len(body) > _MAX_ERROR_BYTES:
                    break
        except (*_TRANSPORT_ERRORS, SlowAnswerError, WrongEncodingError):
            pass
        return self._redactor.body(body)

    def _beginning(self, body: bytes) -> str:
        return self._redactor.text(decoding.beginning(body))

    def _host_time(self, response: requests.Response) -> float:
        host_time = retry.http_date(response.headers.get("date"))
        return time.time() if host_time is None else host_time

    def _succeeded(self) -> None:
        self.limiter.succeeded()
        with self._counting:
            self._answers += 1

    def _sleep_and_count(self, seconds: float) -> None:
        with self._counting:
            self.retries += 1
            spent = self.retries > self._policy.free_retries + self._answers
        if spent:
            raise HostError(
                f"{self.base_url} fails more often than it answers ({self.retries} retries). Try again later."
            )
        self.limiter.sleep(seconds)


class _TransientError(Exception):
    """A failure that is worth another attempt, after `wait` seconds if the host asks for them."""

    def __init__(self, failure: RequestError, wait: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait = wait


_TOO_MANY_HEADERS = "its headers are more than 100, or one is longer than 64 KB"


def _json(body: bytes, charset: str | None) -> Any:
    if not body.strip():
        raise WrongAnswerError("an empty body")
    try:
        return decoding.parse_json(body, charset)
    except ValueError:
        if body.lstrip()[:1] == b"<":
            raise decoding.web_page(body) from None
        raise WrongAnswerError(f"{{kind}} that is not JSON: {decoding.beginning(body)!r}") from None


def _expected_host(words: str, host: str) -> str | None:
    """Return the host that a message names instead of this one, if it is OpenAI's or a neighbour of this one."""
    domains = (".openai.com", "." + ".".join(host.split(".")[-2:]))
    named: list[str] = re.findall(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", words)
    return next((name for name in named if name.lower().endswith(domains) and name.lower() != host), None)


def _reason(error: BaseException) -> str:
    """Return the operating system's word for what went wrong, at the bottom of what libraries wrapped around it."""
    if isinstance(error, requests.exceptions.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return "what listens there does not speak https"
    reason = ""
    inner: BaseException | None = error
    while inner is not None:
        if type(inner) is http.client.HTTPException or isinstance(inner, http.client.LineTooLong):
            return _TOO_MANY_HEADERS
        if isinstance(inner, OSError) and inner.strerror:
            reason = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return reason or _REASONS.get(type(error).__name__, type(error).__name__)
