"""Talking to the API: one connection pool, one limiter, one set of retry rules for all that is requested."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import requests
from dlt.sources.helpers.rest_client.client import RESTClient
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from openai_fine_tuning import settings
from openai_fine_tuning.errors import ConfigurationError, HostError, RequestError

from . import retry
from .auth import Credential, TokenProvider, chosen_scheme, fits_header
from .concurrency import Limiter
from .decoding import file_content, parse_json
from .download import MisplacedRangeError, Transfer
from .urls import checked_url, is_loopback, origin

MAX_REDIRECTS = 3

_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where requests looks for authorities other than its own."""

_UNREACHABLE = ("Connection refused", "Name or service not known", "No route to host", "Network is unreachable")

_REASONS = {
    "ReadTimeout": "it stayed silent for too long",
    "InvalidProxyURL": "the address of the proxy is none",
    "InvalidURL": "the address, or that of the proxy, is none",
    "InvalidSchema": "a proxy of this kind (SOCKS) needs the package PySocks",
}
"""Where the operating system has no word for it."""


@dataclass(frozen=True)
class Answer:
    """A whole answer: its content, and the host's time in unix seconds when it was sent."""

    content: Any
    host_time: float


class FineTuningApi:
    """The read side of one host, as one key sees it. Safe to share between threads.

    Args:
        base_url: For example `https://api.openai.com/v1`; a query (`?api-version=...`) goes with every request.
        api_key: The key, or a function that gives a token. It goes to this host only, over https (loopback excepted).
        auth: How it is sent: `bearer`, `api-key`, or None for what the host takes.
        org_id: Sent as `OpenAI-Organization`.
        project_id: Sent as `OpenAI-Project`.
        concurrency: The highest number of requests in flight.
        timeout: Seconds that the host may stay silent.

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
        concurrency: int = settings.CONCURRENCY,
        timeout: float = settings.READ_TIMEOUT_SECONDS,
    ) -> None:
        self.base_url, self._query = checked_url(base_url)
        host = urlsplit(self.base_url).hostname or ""
        self._credential = Credential(api_key, chosen_scheme(auth, host=host, is_token=callable(api_key)))
        self.limiter = Limiter(concurrency)
        self.requests = 0
        self.retries = 0
        self._answers = 0
        self._counting = threading.Lock()
        self._timeout = (min(timeout, settings.CONNECT_TIMEOUT_SECONDS), timeout)
        session = requests.Session()
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=self.limiter.concurrency)
        session.mount("https://", pool)
        session.mount("http://", pool)
        # The environment is asked once: requests goes through all of it at each request. What is on this machine is
        # reached directly, whatever proxy it names for the world.
        session.trust_env = False
        if not is_loopback(host):
            session.proxies.update(get_environ_proxies(self.base_url))
        session.verify = next(filter(None, map(os.environ.get, _CERTIFICATES)), True)
        parts = {
            "OpenAI-Organization": _checked_id(org_id, "org_id", "organisation"),
            "OpenAI-Project": _checked_id(project_id, "project_id", "project"),
        }
        self._parts = {name: value for name, value in parts.items() if value}
        self._client = RESTClient(
            self.base_url,
            headers={**self._parts, "Accept": "application/json", "User-Agent": "fine-tuning-warehouse"},
            auth=self._credential,
            session=session,
        )

    @property
    def identity(self) -> str:
        """A fingerprint of host and credential, 16 hex digits: whose history this is.

        On loopback the port does not count.

        Raises:
            HostError: The credential is a token, and there is none to be had.
        """
        parts = urlsplit(self.base_url)
        port = "" if is_loopback(parts.hostname or "") else f":{parts.port or ''}"
        whose = f"{parts.hostname}{port}{parts.path}\n{self._credential.owner}"
        told = "".join(f"\n{name}: {value}" for name, value in self._parts.items())
        return hashlib.sha256(f"{whose}{told}".encode()).hexdigest()[:16]

    def url(self, path: str) -> str:
        """The address of a path, without its query: what error messages name."""
        return self.base_url + path

    def get_json(self, path: str, params: Mapping[str, Any] | None = None, *, attempts: int | None = None) -> Answer:
        """Request a path whose answer is JSON. A body that is not whole JSON is a fault of transport: retried.

        Args:
            path: What follows the base URL, ids quoted.
            params: The query.
            attempts: How often it is sent at the most; `settings.MAX_ATTEMPTS` where left out.

        Raises:
            RequestError: It failed for good.
            HostError: It failed in a way that concerns every request.
            CancelledError: The sync was stopped.
        """
        return self._get(path, params, attempts, parse_json)

    def get_bytes(self, path: str) -> Answer:
        """Request a path whose answer is a file's content. Raises as `get_json` does."""
        return self._get(path, None, None, file_content)

    def download(
        self, path: str, file: BinaryIO, *, size: int | None = None, watch: Callable[[int], None] | None = None
    ) -> int:
        """Write a file's content as it comes, however large: memory stays flat. Raises as `get_json` does.

        Where the connection breaks, it goes on from there if the host takes ranges, else from the start. As long as
        each attempt gets further than all before it, it is not given up.

        Args:
            path: What follows the base URL, ids quoted.
            file: Empty, open for reading and writing.
            size: Bytes that it must have in the end; None where that is not known.
            watch: Told of every piece: how many bytes came, fewer than none where it starts again.

        Returns:
            How many bytes it has.
        """
        transfer = Transfer(file, size, watch)
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=lambda _: transfer.failures >= settings.MAX_ATTEMPTS,
            wait=lambda state: _wait(state, transfer.failures),
            sleep=self._sleep_and_count,
            reraise=True,
        )
        try:
            retrying(self._go_on, path, transfer)
        except _TransientError as error:
            raise error.failure from None
        return transfer.position

    def close(self) -> None:
        """Let nothing start any more, and close the connections."""
        self.limiter.cancel()
        self._client.session.close()

    def _get(
        self, path: str, params: Mapping[str, Any] | None, attempts: int | None, parse: Callable[[bytes], Any]
    ) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type(_TransientError),
            stop=stop_after_attempt(attempts or settings.MAX_ATTEMPTS),
            wait=_wait,
            sleep=self._sleep_and_count,
            reraise=True,
        )
        try:
            return retrying(self._attempt, path, {**self._query, **(params or {})}, parse)
        except _TransientError as error:
            raise error.failure from None

    def _attempt(self, path: str, params: dict[str, Any], parse: Callable[[bytes], Any]) -> Answer:
        with self.limiter.slot():
            with self._counting:
                self.requests += 1
            response = self._send(path, params)
        headers = response.headers
        if (reset := retry.exhausted_for(headers)) is not None:
            self.limiter.close_for(min(reset, settings.MAX_RETRY_AFTER_SECONDS))
        if not response.ok or response.is_redirect:
            raise self._failure(path, response)
        host_time = retry.http_date(headers.get("date"))
        try:
            content = parse(response.content)
        except ValueError:
            start = self._credential.hidden(response.content[:2000].decode("utf-8", "replace"))[:60]
            what = f"answered {response.status_code}, but not with what was asked for: {start!r}"
            message = f"{self.url(path)} {what}"
            raise _TransientError(RequestError(message, url=self.url(path), status=response.status_code)) from None
        self.limiter.succeeded()
        with self._counting:
            self._answers += 1
        return Answer(content, time.time() if host_time is None else host_time)

    def _go_on(self, path: str, transfer: Transfer) -> None:
        """One attempt at the rest of a file."""
        try:
            with self.limiter.slot():
                with self._counting:
                    self.requests += 1
                with self._send(path, self._query, headers=transfer.headers, stream=True) as response:
                    self._take(path, transfer, response)
        except requests.RequestException as error:
            raise _TransientError(self._no_answer(path, error)) from None
        except MisplacedRangeError as error:
            failure = RequestError(f"{self.url(path)} {error}", url=self.url(path), status=206)
            raise _TransientError(failure) from None
        finally:
            if transfer.has_advanced():
                with self._counting:
                    self._answers += 1
        self.limiter.succeeded()

    def _take(self, path: str, transfer: Transfer, response: requests.Response) -> None:
        url = self.url(path)
        if response.status_code == 416 and transfer.position:
            told = transfer.wrong_size or "does not go on where it broke off"
            transfer.start_again()
            raise _TransientError(RequestError(f"{url} {told}", url=url, detail=told))
        if not response.ok or response.is_redirect:
            raise self._failure(path, response)
        for piece in transfer.pieces(response):
            if transfer.is_page(response, piece):
                start = self._credential.hidden(piece[:2000].decode("utf-8", "replace"))[:60]
                message = f"{url} answered {response.status_code}, but not with what was asked for: {start!r}"
                raise _TransientError(RequestError(message, url=url, status=response.status_code))
            transfer.write(piece)
            self.limiter.raise_if_cancelled()
        if (wrong := transfer.wrong_size) is not None:
            raise _TransientError(RequestError(f"{url} {wrong}", url=url, detail=wrong))

    def _send(
        self, path: str, params: Mapping[str, Any], *, headers: Mapping[str, str] | None = None, stream: bool = False
    ) -> requests.Response:
        target, query, is_renewed = path, dict(params), False
        for _ in range(MAX_REDIRECTS + 2):
            try:
                response = self._client.get(
                    target,
                    params=query,
                    headers=dict(headers or {}),
                    stream=stream,
                    allow_redirects=False,
                    timeout=self._timeout,
                )
            except requests.RequestException as error:
                failure = self._no_answer(path, error)
                if isinstance(error, ValueError):
                    raise failure from None  # nothing was sent, and nothing will be
                raise _TransientError(failure) from None
            if response.status_code == 401 and not is_renewed and self._credential.renew(response.request):
                is_renewed = True
                response.close()
                with self._counting:
                    self.requests += 1
                continue
            if not response.is_redirect:
                return response
            location = urljoin(response.url, response.headers["location"])
            if origin(location) != origin(self.base_url):
                break
            target, query = location, {}
        return response

    def _no_answer(self, path: str, error: requests.RequestException) -> RequestError:
        url, detail = self.url(path), self._credential.hidden(_reason(error))
        if isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower():
            raise HostError(f"The certificate of {self.base_url} could not be verified: {detail}") from None
        is_reached = detail not in _UNREACHABLE and not isinstance(
            error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError, ValueError)
        )
        what = "gave no whole answer" if is_reached else "could not be reached"
        return RequestError(f"{url} {what}: {detail}", url=url, detail=detail)

    def _failure(self, path: str, response: requests.Response) -> Exception:
        """The error that an answer with this status means: one worth another attempt, or a final one."""
        url, status, headers = self.url(path), response.status_code, response.headers
        code, words, about = self._error_body(path, response)
        if response.is_redirect:
            where = self._credential.hidden(urlsplit(headers["location"]).hostname or "itself")
            return RequestError(
                f"{url} redirects to {where}, and the key is not sent there. If that is your host, set it as base URL.",
                url=url,
                status=status,
            )
        named = f" ({code})" if code and code != str(status) else ""
        error = RequestError(
            f"{url} answered {status}{named}{f': {words}' if words else ''}",
            url=url,
            status=status,
            code=code,
            detail=words,
            about=about,
        )
        if code == "insufficient_quota":
            return HostError(f"{error}. The quota is used up; waiting does not help. Check plan and billing.")
        if not retry.should_retry(status, headers, code):
            return error
        wait = retry.retry_after(headers)
        if wait is not None and wait > settings.MAX_RETRY_AFTER_SECONDS:
            return HostError(
                f"{url} answered {status} and asks to wait {wait:.0f} s, more than the "
                f"{settings.MAX_RETRY_AFTER_SECONDS:.0f} s that a sync waits. Run it again later."
            )
        if status == 429:
            self.limiter.throttled()
            if wait:
                self.limiter.close_for(wait)
        return _TransientError(error, wait)

    def _error_body(self, path: str, response: requests.Response) -> tuple[str | None, str, str]:
        """The `code` and the words of an error body, and what they are about (see `RequestError.about`)."""
        try:
            body = parse_json(response.content)
        except ValueError:
            return None, "", "endpoint"
        body = body if isinstance(body, dict) else {}
        error = body.get("error", body.get("detail", body.get("message")))
        if not isinstance(error, dict):
            error = {"message": error}
        code = self._credential.hidden(str(error["code"]))[:100] if error.get("code") is not None else None
        words = self._credential.hidden(str(error.get("message") or ""))[:300]
        if body.get("detail") == "Not Found" or re.search(r"\b(url|endpoint|route)\b", words.lower()):
            return code, words, "endpoint"
        ids = [unquote(part) for part in path.split("/") if part not in ("", "fine_tuning", "jobs", "files", "content")]
        named = any(part in words for part in ids[:1]) or (code or "").endswith("_not_found")
        return code, words, "object" if named else "unclear"

    def _sleep_and_count(self, seconds: float) -> None:
        with self._counting:
            self.retries += 1
            spent = self.retries > settings.FREE_RETRIES + self._answers
        if spent:
            raise HostError(
                f"{self.base_url} fails more often than it answers ({self.retries} retries). Try again later."
            )
        self.limiter.sleep(seconds)


class _TransientError(Exception):
    """A failure that is worth another attempt, after `wait` seconds where the host has said so."""

    def __init__(self, failure: RequestError, wait: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait = wait


def _wait(state: RetryCallState, attempt: int | None = None) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, _TransientError) else None
    return retry.backoff(attempt or state.attempt_number) if asked is None else asked


def _checked_id(value: str | None, setting: str, what: str) -> str:
    value = (value or "").strip()
    if not fits_header(value) or re.search("[\"'`]", value):
        words = f"The id of the {what} holds characters that none has, such as spaces, quotes or line breaks."
        raise ConfigurationError(words, setting=setting)
    return value


def _reason(error: BaseException) -> str:
    """The operating system's word for what went wrong, at the bottom of what the libraries wrapped around it."""
    if isinstance(error, requests.exceptions.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return "what listens there speaks no https"
    reason = ""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            reason = inner.strerror
        inner = inner.__cause__ or inner.__context__
    return reason or _REASONS.get(type(error).__name__, type(error).__name__)
