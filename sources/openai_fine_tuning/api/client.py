"""The client of the API: one connection pool, one limiter and one set of retry rules for every request."""

from __future__ import annotations

import hashlib
import http.client
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from typing_extensions import Self
from urllib3 import BaseHTTPResponse as Response

from openai_fine_tuning import settings
from openai_fine_tuning.errors import ConfigurationError, HostError, RequestError
from openai_fine_tuning.settings import RequestPolicy

from . import answers, decoding, retry
from .auth import Credential, TokenProvider, checked_headers, checked_id, chosen_scheme
from .concurrency import Limiter
from .connection import Connections, Pace, pace
from .download import Download
from .redaction import Redactor
from .retry import AttemptError
from .urls import checked_url, is_loopback, origin, redirect_target

MAX_REDIRECTS = 3

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
    "ProtocolError": "the connection ended too early",
    "EOFError": "the compressed body ended too early",
    "InvalidProxyURL": "the address of the proxy is not valid",
    "InvalidURL": "the address, or that of the proxy, is not valid",
    "LocationParseError": "the address, or that of the proxy, is not valid",
    "InvalidSchema": "a proxy of this kind (SOCKS) needs the package PySocks",
}
"""Reasons of failures that the operating system has no words for."""
_TOO_MANY_HEADERS = "its headers are more than 100, or one is longer than 64 KB"
_HEADERS = {"Accept": "application/json", "User-Agent": "fine-tuning-warehouse"}
_ERROR_MEGABYTES = 0.1
"""How much is read of an answer that only matters for its words."""


@dataclass(frozen=True)
class Answer:
    """A whole answer: its content, and the host's time in unix seconds when it was sent."""

    content: Any
    host_time: float


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
        self._answers = 0
        self._counting = threading.Lock()
        self._policy = policy or RequestPolicy()
        self._redactor = Redactor()
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        self._warns_of_http = parts.scheme != "https" and not is_loopback(host)
        try:  # requests writes a name with other letters than ASCII as it goes to the name server
            self._sent_url = (requests.Request("GET", self.base_url).prepare().url or "").rstrip("/")
            self._origin = origin(self._sent_url)
        except ValueError:
            raise ConfigurationError("The base URL has a host name that cannot be one.", setting="base_url") from None
        headers = {
            "OpenAI-Organization": checked_id(org_id, "org_id", "organisation"),
            "OpenAI-Project": checked_id(project_id, "project_id", "project"),
            **checked_headers(extra_headers, self._redactor),
        }
        self._credential = Credential(
            api_key,
            chosen_scheme(auth, host=host, is_token=callable(api_key)),
            allowed=self._origin,
            headers={name: value for name, value in headers.items() if value},
            redactor=self._redactor,
        )
        self._connections = Connections(self._sent_url, self.limiter.concurrency)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def host(self) -> str:
        """The host, with its port if one is given; on loopback the port does not count."""
        parts = urlsplit(self.base_url)
        name = parts.hostname or ""
        return name if parts.port is None or is_loopback(name) else f"{name}:{parts.port}"

    @property
    def identity(self) -> str:
        """The fingerprint of host, credential and headers (16 hex digits), which tells histories apart.

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

    def get_json(self, path: str) -> Answer:
        """Request a single record, such as a job or a file. The content is a dict with an id.

        `path` is what follows the base URL, ids quoted.

        Raises:
            RequestError: It failed for good. An error in an answer with status 200 is one, too.
            HostError: It failed in a way that concerns every request.
            CancelledError: The sync was stopped.
        """
        return self._get(path, answers.record)

    def get_page(self, path: str, params: Mapping[str, Any] | None = None, *, attempts: int | None = None) -> Answer:
        """Request a page of a listing. The content is a dict with a list under `data`. Raises as `get_json` does.

        Args:
            path: What follows the base URL, ids quoted.
            params: The query.
            attempts: How often the request is sent at the most; by default as the policy says.
        """

        def page(body: bytes, response: Response) -> dict[str, Any]:
            found = answers.page_of_records(body, response)
            most = int(self._policy.max_answer_megabytes * settings.RECORDS_PER_MEGABYTE)
            if len(found["data"]) > most:
                raise decoding.too_large(f"{most:,} records", response.status)
            return found

        return self._get(path, page, params, attempts)

    def get_bytes(self, path: str) -> Answer:
        """Request a file's content, as bytes. Raises as `get_json` does."""
        return self._get(path, answers.file_content)

    def download(
        self, path: str, file: BinaryIO, *, size: int | None = None, watch: Callable[[int], None] | None = None
    ) -> int:
        """Write a file's content as it comes, however large if its size is known. Raises as `get_json` does.

        If the connection breaks, the download goes on from there if the host takes ranges, else from the start. It
        is given up only after several attempts that got no further than those before.

        Args:
            path: What follows the base URL, ids quoted.
            file: Empty, open for reading and writing.
            size: Bytes that it must have in the end. If None, an answer is bounded as that to `get_bytes` is.
            watch: Called for every piece with the bytes that came; a negative number if it starts again.

        Returns:
            The size of the file in bytes.
        """
        download = Download(file, size, self._policy.max_answer_megabytes, watch)
        seconds = self._policy.answer_seconds if size is None else math.inf

        def attempt() -> None:
            headers = download.next_headers()
            expected = (416,) if download.position else ()
            try:
                with self._response(path, self._query, headers, seconds, expected) as response:
                    download.take(response, self.limiter.raise_if_cancelled)
            except AttemptError:
                if download.write_error is not None:
                    raise download.write_error from None
                raise
            finally:
                if download.has_advanced():
                    with self._counting:
                        self._answers += 1
            self.limiter.succeeded()

        self._repeat(path, attempt, self._policy.max_attempts, lambda _: download.failures)
        return download.position

    def close(self) -> None:
        """Let no request start any more, and close the connections."""
        self.limiter.cancel()
        self._connections.close()

    # attempts --------------------------------------------------------------------------------------------------------

    def _get(
        self,
        path: str,
        parse: Callable[[bytes, Response], Any],
        params: Mapping[str, Any] | None = None,
        attempts: int | None = None,
    ) -> Answer:
        policy, encodings = self._policy, "gzip, deflate"

        def attempt() -> Answer:
            nonlocal encodings
            headers, encodings = {"Accept-Encoding": encodings}, "identity"  # a gateway may say gzip of a plain body
            query = {**self._query, **(params or {})}
            with self._response(path, query, headers, policy.answer_seconds) as response:
                body = self._redactor.body(decoding.read_body(response, policy.max_answer_megabytes))
            content = parse(body, response)
            self.limiter.succeeded()
            with self._counting:
                self._answers += 1
            host_time = retry.http_date(response.headers.get("date"))
            return Answer(content, time.time() if host_time is None else host_time)

        answer: Answer = self._repeat(path, attempt, attempts or policy.max_attempts, lambda one: one.attempt_number)
        return answer

    def _repeat(
        self, path: str, attempt: Callable[[], Any], most: int, failures: Callable[[RetryCallState], int]
    ) -> Any:
        """Make attempts until one succeeds, or fails for good, or `most` in a row have failed."""
        odd = 0  # failures that are repeated only a few times

        def failure(state: RetryCallState) -> AttemptError:
            error = state.outcome.exception() if state.outcome else None
            assert isinstance(error, AttemptError)  # noqa: S101 - for the type checker: nothing else is retried
            return error

        def is_over(state: RetryCallState) -> bool:
            nonlocal odd
            retries = failure(state).retries
            odd += retries is not None
            return failures(state) >= most or (retries is not None and odd > retries)

        def wait(state: RetryCallState) -> float:
            asked = failure(state).wait
            return retry.backoff(failures(state), self._policy) if asked is None else asked

        def log(state: RetryCallState) -> None:
            failed, number = self._final(path, failure(state)), state.attempt_number + 1
            logger.info("%s. Attempt %d follows in %.1f s", failed, number, state.upcoming_sleep)

        only, sleep = retry_if_exception_type(AttemptError), self._sleep_and_count
        try:
            return Retrying(retry=only, stop=is_over, wait=wait, sleep=sleep, before_sleep=log, reraise=True)(attempt)
        except AttemptError as error:
            final = self._final(path, error)
        if final.code == "insufficient_quota":
            raise HostError(f"{final}. The quota is used up; waiting does not help. Check plan and billing.")
        raise final

    @contextmanager
    def _response(
        self,
        path: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        seconds: float,
        also: tuple[int, ...] = (),
    ) -> Iterator[Response]:
        """Send a request, and yield the unread answer if its status is a success or in `also`."""
        response = None
        try:
            with self.limiter.slot():
                response = self._send(path, params, headers, seconds)
                if response.status not in also:
                    self._check(path, response)
                yield response
        except _TRANSPORT_ERRORS as error:
            raise self._transport_error(error) from None
        finally:
            if response is not None:
                _close(response)

    def _send(self, path: str, params: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> Response:
        """Send a request, and again after a redirect within the host or with a new token. Return the answer unread."""
        policy, is_renewed, redirects = self._policy, False, 0
        target = self._sent_url + path + (f"?{urlencode(params)}" if params else "")
        if self._warns_of_http:
            self._warns_of_http = False
            logger.warning("%s is plain http: anyone on the way can read the key (openai_allow_http).", self.base_url)
        pace.set(Pace(seconds, policy.min_bytes_per_second, max(policy.rate_window, policy.read_timeout)))
        while True:
            with self._counting:
                self.requests += 1
            sent = {**_HEADERS, **headers, **self._credential.headers_for(target)}
            response = self._connections.get(
                target,
                sent,
                connect_timeout=min(policy.read_timeout, policy.connect_timeout),
                read_timeout=policy.read_timeout,
            )
            if response.status == 401 and not is_renewed and self._credential.renew(sent):
                is_renewed = True
            elif response.get_redirect_location():
                redirects += 1
                target = self._redirected(target, response, redirects)
            else:
                return response
            _close(response)

    # failures --------------------------------------------------------------------------------------------------------

    def _redirected(self, url: str, response: Response, redirects: int) -> str:
        """Return the address to ask instead. Raises `AttemptError` if it is not followed."""
        try:
            if redirects > MAX_REDIRECTS:
                raise AttemptError(f"redirects more than {MAX_REDIRECTS} times", retries=0)
            return redirect_target(response.headers["location"], url=url, allowed=self._origin)
        except AttemptError as error:
            _close(response)
            error.details["status"] = response.status
            raise

    def _check(self, path: str, response: Response) -> None:
        """Raise what the status and the headers of an answer mean, unless they promise what was asked for."""
        if (reset := retry.exhausted_for(response.headers)) is not None:
            self.limiter.close_for(min(reset, self._policy.max_retry_after))
        if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            raise answers.event_stream(self._redactor.body(response.read1(200, decode_content=False)), response)
        if 200 <= response.status < 300:
            return
        body = b""
        with suppress(*_TRANSPORT_ERRORS, AttemptError):
            body = self._redactor.body(decoding.read_body(response, _ERROR_MEGABYTES))
        error = answers.status_error(self.base_url, path, body, response)
        longest = self._policy.max_retry_after
        if error.retries is None and error.wait is not None and error.wait > longest:
            raise HostError(
                f"{self.url(path)} answered {response.status} and asks to wait {error.wait:.0f} s, more than the "
                f"{longest:.0f} s that a sync waits. Run it again later."
            )
        if response.status == 429 and error.retries is None:
            self.limiter.throttled()
            self.limiter.close_for(error.wait or 0)
        raise error

    def _transport_error(self, error: Exception) -> Exception:
        """Return the error of an answer that did not come whole."""
        detail = _reason(error)
        if isinstance(error, urllib3.exceptions.SSLError) and "certificate" in str(error).lower():
            return HostError(f"The certificate of {self.base_url} could not be verified: {self._redactor.text(detail)}")
        is_reached = detail not in _UNREACHABLE and not isinstance(
            error, (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.SSLError, ValueError)
        )
        what = "gave no whole answer" if is_reached else "could not be reached"
        is_final = isinstance(error, ValueError) or detail == _TOO_MANY_HEADERS  # an address that urllib3 refuses
        return AttemptError(f"{what}: {detail}", retries=0 if is_final else None, detail=detail)

    def _final(self, path: str, error: AttemptError) -> RequestError:
        """Return a failed attempt as the failure of its request, without secrets."""
        hide, url = self._redactor.text, self.url(path)
        details: dict[str, Any] = {
            name: hide(value) if isinstance(value, str) else value for name, value in error.details.items()
        }
        return RequestError(f"{url} {hide(error.words)}{error.advice}", url=url, **details)

    def _sleep_and_count(self, seconds: float) -> None:
        with self._counting:
            self.retries += 1
            spent = self.retries > self._policy.free_retries + self._answers
        if spent:
            raise HostError(
                f"{self.base_url} fails more often than it answers ({self.retries} retries). Try again later."
            )
        self.limiter.sleep(seconds)


def _close(response: Response) -> None:
    """Let go of an answer's connection. One with an unread rest is closed, since another request cannot use it."""
    response.close()
    response.release_conn()


def _reason(error: BaseException) -> str:
    """Return the operating system's word for what went wrong, at the bottom of what libraries wrapped around it."""
    if isinstance(error, urllib3.exceptions.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
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
