"""Errors of this source. Messages say what happened, where, and what to do; never a credential.

FineTuningSourceError
├── ConfigurationError     a setting is missing or cannot be right
├── StateTooNewError       a later release wrote the destination's state
├── CancelledError         the sync was asked to stop
├── HostError              a failure that concerns every request: it ends the sync
├── RequestError           a request that failed for good
└── EndlessListingError    a listing that would never end
"""

from __future__ import annotations


class FineTuningSourceError(Exception):
    """The base of all errors that this source raises on purpose.

    Attributes:
        is_deliberate: Whether the message names the cause already, so that it is shown without the causes below it.
    """

    is_deliberate = True


class ConfigurationError(FineTuningSourceError):
    """A setting is missing or cannot be right: nothing was requested.

    Attributes:
        setting: The name of `FineTuningApi`'s argument; None for a setting of something else.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class StateTooNewError(FineTuningSourceError):
    """A later release wrote the destination's state."""


class CancelledError(FineTuningSourceError):
    """The sync was asked to stop."""


class HostError(FineTuningSourceError):
    """A failure that concerns everything: the host is down, refuses the key, or has no quota. It ends the sync.

    Attributes:
        request: The failed request that shows it; None if it was not a single one.
    """

    def __init__(self, message: str, *, request: RequestError | None = None) -> None:
        super().__init__(message)
        self.request = request

    @classmethod
    def of(cls, error: RequestError, base_url: str) -> HostError:
        """Return the error that ends a sync because of a failed request, with what to check."""
        if error.expected_host is not None:
            advice = f" Set the base URL (OPENAI_BASE_URL) to https://{error.expected_host}/v1: the key works there."
        elif error.status == 401:
            advice = " Check the key: it was refused."
        elif error.status == 403:
            advice = " Check that the key may read fine-tuning jobs (scope api.fine_tuning.jobs.read)."
        elif error.status == 404:
            advice = " Check the base URL: it ends in /v1 on most hosts."
        elif error.status is None and not error.setting:
            advice = f" Is the host up, and the base URL {base_url} right?"
        else:
            advice = ""
        return cls(f"{str(error).rstrip('.')}.{advice}", request=error)


class RequestError(FineTuningSourceError):
    """A request that failed for good, after retries if they make sense.

    Attributes:
        url: The address without its query.
        status: The HTTP status, or None if no whole answer came.
        code: The `error.code` of the body, if it has one.
        detail: The host's own words, cut to 300 characters.
        about: What a 404 says is missing (the requested `object` or the `endpoint` itself); `page` if a web page or
            a stream came instead of the API's answer; `unclear` otherwise.
        expected_host: The host that the key belongs to, if this host says that it is the wrong one.
        setting: The source's argument that lifts the bound which the answer exceeded.
    """

    def __init__(
        self,
        message: str,
        *,
        url: str,
        status: int | None = None,
        code: str | None = None,
        detail: str = "",
        about: str = "unclear",
        expected_host: str | None = None,
        setting: str | None = None,
    ) -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.code = code
        self.detail = detail
        self.about = about
        self.expected_host = expected_host
        self.setting = setting

    @property
    def is_missing_scope(self) -> bool:
        """Whether the host says that the key lacks a permission, which then holds for every job."""
        words = self.detail.lower()
        return self.status in (401, 403) and ("scope" in words or "insufficient permissions" in words)

    @property
    def is_missing_endpoint(self) -> bool:
        """Whether the host says that it has no such endpoint at all."""
        return self.status in (405, 501) or (self.status == 404 and self.about == "endpoint")


class EndlessListingError(FineTuningSourceError):
    """A listing that would never end: its cursor does not move, or a page comes again."""
