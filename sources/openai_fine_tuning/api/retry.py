"""When a failed request is sent again, and after how long: openai-python's rules."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from openai_fine_tuning import settings

RETRIED_STATUSES = frozenset({408, 409, 429})


def should_retry(status: int, headers: Mapping[str, str], code: str | None) -> bool:
    """Whether an answer with this status is worth another attempt.

    Args:
        status: The HTTP status.
        headers: The answer's headers; `x-should-retry` overrides every other rule but that for a used-up quota.
        code: `error.code` of the body: `insufficient_quota` never gets better by waiting.
    """
    if code == "insufficient_quota":
        return False
    told = headers.get("x-should-retry", "").strip().lower()
    if told in ("true", "false"):
        return told == "true"
    return status in RETRIED_STATUSES or status >= 500


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that the host asks for: `retry-after-ms`, else `Retry-After` (seconds or an HTTP date)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return max(0.0, seconds)
    until = http_date(value)
    if until is None:
        return None
    # By the host's own clock where it tells it: the two may disagree with this machine's, but not with each other.
    now = http_date(headers.get("date"))
    return max(0.0, until - (time.time() if now is None else now))


def backoff(attempt: int) -> float:
    """The wait in seconds after the given attempt (1 is the first), where the host asks for none."""
    wait = min(settings.BACKOFF_SECONDS * 2.0 ** (attempt - 1), settings.MAX_BACKOFF_SECONDS)
    return wait * (1 - 0.25 * random.random())  # noqa: S311 - jitter, not a secret


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until the host takes requests again, where its rate-limit headers say that none are left."""
    if _number(headers.get("x-ratelimit-remaining-requests")) != 0:
        return None
    return _duration(headers.get("x-ratelimit-reset-requests", ""))


def http_date(value: str | None) -> float | None:
    """An HTTP date as unix seconds, or None where it is missing or is none."""
    if not value:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    return number if number is None or 0 <= number < float("inf") else None


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(text: str) -> float | None:
    """A reset such as `12s`, `20ms`, `6m0s` or `1.5`, in seconds."""
    text = text.strip()
    if (plain := _number(text)) is not None:
        return plain
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
