"""When a failed request is sent again, and after how long: the rules of the official Python client."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from openai_fine_tuning.settings import RequestPolicy

ODD_RETRIES = 2
"""Retries after a failure that waiting hardly changes, such as a web page in an answer's place."""

_MAX_HEADER = 64
"""A number or a date in a header is shorter than this."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class AttemptError(Exception):
    """An attempt at a request that failed.

    Attributes:
        words: What happened, as the end of a sentence that begins with the address. A secret in it is hidden later.
        advice: Words of this program that follow.
        retries: How many more attempts such a failure is worth; None for as many as the policy allows.
        wait: The seconds that the host asks to wait.
        details: The attributes of the `RequestError` that it becomes.
    """

    def __init__(
        self, words: str, *, advice: str = "", retries: int | None = None, wait: float | None = None, **details: Any
    ) -> None:
        super().__init__(words)
        self.words = words
        self.advice = advice
        self.retries = retries
        self.wait = wait
        self.details = details


def should_retry(status: int, headers: Mapping[str, str], code: str | None) -> bool:
    """Return whether an answer with this status, these headers and this error code is worth another attempt."""
    if code == "insufficient_quota":  # never gets better by waiting
        return False
    asked = headers.get("x-should-retry", "").strip().lower()
    if asked in {"true", "false"}:  # the host says so itself
        return asked == "true"
    if status in {408, 409, 429}:  # request timeout, lock timeout, rate limit
        return True
    return status >= 500  # internal errors


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds that the host asks for: `retry-after-ms`, else `Retry-After` (seconds or a date)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds, until = _number(value), http_date(value)
    if seconds is not None or until is None:
        return seconds
    # The host's own clock, if it sends the time: it may differ from this machine's clock.
    now = http_date(headers.get("date"))
    return max(0.0, until - (time.time() if now is None else now))


def backoff(attempt: int, policy: RequestPolicy) -> float:
    """Return the wait in seconds after the given attempt (1 is the first), if the host asks for none."""
    wait = min(policy.backoff * 2.0 ** min(attempt - 1, 60), policy.max_backoff)
    return wait * (1 - 0.25 * random.random())  # noqa: S311 - jitter, not a secret


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the host takes requests again, if its rate-limit headers say that none are left."""
    if _number(headers.get("x-ratelimit-remaining-requests")) != 0:
        return None
    return _duration(headers.get("x-ratelimit-reset-requests", ""))


def http_date(value: str | None) -> float | None:
    """Return an HTTP date as unix seconds, or None if it is missing or malformed."""
    if not value or len(value) > _MAX_HEADER:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None and len(value) <= _MAX_HEADER else -1.0
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _duration(text: str) -> float | None:
    """Return a reset such as `12s`, `20ms`, `6m0s` or `1.5` in seconds."""
    text = text.strip()[: _MAX_HEADER + 1]
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return _number(text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
