"""What can go wrong, as one family. Messages say what happened, where, and what to do; never a credential."""

from __future__ import annotations


class FineTuningSourceError(Exception):
    """The base of all errors that this source raises on purpose.

    Attributes:
        is_deliberate: What it was raised from is already said in its message.
    """

    is_deliberate = True


class ConfigurationError(FineTuningSourceError):
    """A setting is missing or cannot be right: nothing was requested.

    Attributes:
        setting: Which, by the name of `FineTuningApi`'s argument; None where it is another.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class StateTooNewError(FineTuningSourceError):
    """The destination's state was written by a later release."""


class CancelledError(FineTuningSourceError):
    """The sync was told to stop."""


class HostError(FineTuningSourceError):
    """A failure that concerns everything: the host is down, refuses the key, or has no quota. It ends the sync.

    Attributes:
        request: The failed request that tells so; None where it was no single one.
    """

    def __init__(self, message: str, *, request: RequestError | None = None) -> None:
        super().__init__(message)
        self.request = request

    @classmethod
    def of(cls, error: RequestError, base_url: str) -> HostError:
        """A failed request as what ends the sync, with what to check."""
        if error.status == 401:
            advice = " Check the key: it was refused."
        elif error.status == 403:
            advice = " Check that the key may read fine-tuning jobs (scope api.fine_tuning.jobs.read)."
        elif error.status == 404:
            advice = " Check the base URL: it ends in /v1 on most hosts."
        elif error.status is None:
            advice = f" Is the host up, and the base URL {base_url} right?"
        else:
            advice = ""
        return cls(f"{str(error).rstrip('.')}.{advice}", request=error)


class RequestError(FineTuningSourceError):
    """A request that failed for good, after retries where they make sense.

    Attributes:
        url: The address without its query.
        status: The HTTP status, or None where no whole answer came.
        code: The `error.code` of the body, where it has one.
        detail: The host's own words, cut to 300 characters.
        about: What a 404 says is missing: the requested `object`, the `endpoint` itself, or `unclear`.
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
    ) -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.code = code
        self.detail = detail
        self.about = about

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
    """A listing that would never end: its cursor does not move, or it repeats itself."""
