"""The settings of the source, each with its unit and its reason."""

from dataclasses import dataclass
from typing import Any

DEFAULT_BASE_URL = "https://api.openai.com/v1"

JOB_RESOURCES = ("jobs", "checkpoints", "events", "result_metrics", "files")
"""The resources that are read job by job, each with a watermark."""

RESOURCES = (*JOB_RESOURCES, "models")
"""What can be selected, in the order in which it is shown."""

TERMINAL_STATUSES = frozenset({"succeeded", "failed", "cancelled", "canceled"})
"""A job in one of these has ended, but its checkpoints may still appear for a while. With any other status, which hosts
name as they like, a job has ended once its `finished_at` has passed."""

FAILED_STATUSES = frozenset({"failed", "cancelled", "canceled"})
"""Statuses of a job that ended before it was fully trained."""

GRACE_SECONDS = 3600.0
"""How long after `finished_at` a job stays open: events were seen 2 s after it, checkpoints minutes after."""

OVERLAP_SECONDS = 60.0
"""How far behind the newest job the listing is read again: the clocks of a host agree within this."""

PAGE_LIMIT = 100
"""Records requested in one page. The API documents no maximum; hosts are seen to allow 100."""

FILES_PAGE_LIMIT = 10_000
"""Files requested in one page: the most that the API documents."""

MAX_FILES_PAGES = 10
"""Pages of the listing of files that are read; further files are requested one by one."""

FEW_FILES = 10
"""Up to this many files are requested one by one in a sync; for more, the listing of all files costs fewer requests."""

MODELS_SECONDS = 86_400.0
"""How long the listing of models counts as read: models come and go by the day, and each sync would cost a request."""

MAX_MODELS_PAGES = 100
"""Pages of the listing of models after which it counts as endless. Hosts send it as one page."""

MAX_PAGES = 10_000
"""Pages after which one listing counts as endless: a million records at 100 a page."""

BATCH_ROWS = 10_000
"""Rows of one table that are yielded together as one Arrow table."""

MERGE: Any = {"disposition": "merge", "deduplicated": True}
"""How rows are written. `convert` drops duplicates, so that no destination sorts a whole load to find them."""

MAX_COLUMNS = 100
"""Columns that a table may grow to. Further fields go into its JSON column: wide tables make every query slow."""

MAX_COLUMN_NAME = 63
"""Characters of a column name: PostgreSQL cuts longer ones off."""

CONCURRENCY = 16
"""Requests in flight at once, at the most."""

CONNECT_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 60.0
"""How long a host may stay silent within one answer."""

MAX_ATTEMPTS = 7
"""How often one request is sent before its failure counts: with 15 % of answers faulty, 2 in a million fail."""

BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 8.0
"""The first wait between two attempts, and the longest: each wait is twice the one before, less up to a quarter
(openai-python's rule)."""

MAX_RETRY_AFTER_SECONDS = 120.0
"""A host that asks for a longer wait than this is refused: the sync ends and says so."""

FREE_RETRIES = 100
"""Retries that a sync may make in addition to one for each answer that succeeded."""

MAX_ANSWER_MEGABYTES = 64.0
"""The largest page or result file that is read, decompressed: pages of 100 records have less than one."""

RECORDS_PER_MEGABYTE = 2_000
"""The most records on a page, for each megabyte that the page may have: even an empty record takes memory."""

MAX_RESULT_ROWS = 1_000_000
"""The most steps of a result file: a million take some 600 MB of memory."""

ANSWER_SECONDS = 300.0
"""How long one page or result file may take from the request to its last byte."""

MIN_BYTES_PER_SECOND = 100
RATE_WINDOW_SECONDS = 60.0
"""The lowest rate at which an answer may come, and the seconds of waiting over which the rate is measured."""

STATE_VERSION = 1
"""The version of the state. A newer one, written by a later release, is refused."""

KEPT_IDENTITIES = 5
"""Watermarks kept for one account: that of this key, and those of the last few keys before it."""


@dataclass(frozen=True)
class RequestPolicy:
    """Rules for sending a request again, and bounds on its answer. Times are in seconds; the settings above say why.

    Example: `RequestPolicy(read_timeout=5, max_attempts=2)`
    """

    connect_timeout: float = CONNECT_TIMEOUT_SECONDS
    read_timeout: float = READ_TIMEOUT_SECONDS
    max_attempts: int = MAX_ATTEMPTS
    backoff: float = BACKOFF_SECONDS
    max_backoff: float = MAX_BACKOFF_SECONDS
    max_retry_after: float = MAX_RETRY_AFTER_SECONDS
    free_retries: int = FREE_RETRIES
    max_answer_megabytes: float = MAX_ANSWER_MEGABYTES
    answer_seconds: float = ANSWER_SECONDS
    min_bytes_per_second: float = MIN_BYTES_PER_SECOND
    rate_window: float = RATE_WINDOW_SECONDS
