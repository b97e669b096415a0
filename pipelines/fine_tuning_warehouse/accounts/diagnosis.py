"""Turn a failed request into what is wrong and which setting to change.

A table leads from what came (status, words) to what to do. Where another path, version or header on the same host may
make the difference, it is tried once, and what answers is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from requests.utils import get_environ_proxies

from fine_tuning_warehouse.errors import CommandError, RefusedError, UsageError
from openai_fine_tuning import ConfigurationError, FineTuningSourceError, HostError, RequestError
from openai_fine_tuning.api.auth import is_azure
from openai_fine_tuning.api.urls import JOBS_PATH

from .account import ENTRA, Account
from .azure import host_of, shown_url

DATED_VERSION = "2024-10-21"
"""A version of Azure's classic API that knows checkpoints."""

_SCOPES = "api.fine_tuning.jobs.read and api.files.read"
_ENTRA_ROLE = "Cognitive Services OpenAI User"


def describe_settings(account: Account) -> str:
    """Return where each setting of an account was found, in a line."""
    host = account.setting_location("base_url") if "base_url" in account.locations else "the default, OpenAI"
    key = "tokens of Entra" if account.auth == ENTRA else f"key from {account.setting_location('api_key')}"
    others = {
        "org_id": "organization",
        "project_id": "project",
        "extra_headers": f"headers {', '.join(account.extra_headers)}",
        "allow_http": "plain http allowed",
    }
    found = [
        f"{words} from {account.setting_location(name)}" for name, words in others.items() if getattr(account, name)
    ]
    return ", ".join([f"host from {host}", key, *found])


def to_command_error(account: Account, error: FineTuningSourceError) -> CommandError:
    """Return a failure of the source as one of a command: what is wrong, and what to change. Nothing is requested.

    Args:
        account: The account that was read.
        error: What the source raised.
    """
    if isinstance(error, ConfigurationError):
        return UsageError(str(error))
    if isinstance(error, HostError) and error.request is not None:
        words = diagnose(account, error.request, tries=False)
        if error.request.status == 404:
            words += " `ftw check` tries which path answers."
        return RefusedError(words) if error.request.status == 401 else CommandError(words)
    return CommandError(str(error))


def diagnose(account: Account, error: FineTuningSourceError, *, tries: bool = True) -> str:
    """Return what went wrong with the job listing, and what to change.

    Args:
        account: The account whose jobs were listed.
        error: What was raised.
        tries: Find out what would answer, with at most five more requests.
    """
    failure = _Failure(account, error, tries)
    for cause in _CAUSES:
        if cause.fits(failure) and (advice := cause.advice_on(failure)):
            return f"{str(error).rstrip('.')}. {advice}"
    return str(error)


def advice_on_resource(account: Account, error: FineTuningSourceError) -> str:
    """Return what went wrong with one endpoint, where the job listing could be read, and what to change."""
    failure = _Failure(account, error, tries=False)
    advice = ""
    if failure.is_missing_scope:
        advice = _scope(failure)
    elif failure.status in (401, 403):
        advice = "The key may read jobs, but not this: check what it is restricted to."
    elif failure.status in (404, 405, 501):
        advice = "The host has no such endpoint: a sync reads everything else."
    return f"{error}. {advice}" if advice else str(error)


@dataclass(frozen=True)
class _Failure:
    """A failed request of an account."""

    account: Account
    error: FineTuningSourceError
    tries: bool

    @property
    def status(self) -> int | None:
        """The HTTP status; 0 where no answer came, None where it was not a request that failed."""
        return (self.error.status or 0) if isinstance(self.error, RequestError) else None

    @property
    def words(self) -> str:
        """What the host said, in lower case; the whole message where it was not a request that failed."""
        error = self.error
        return (f"{error.code or ''} {error.detail}" if isinstance(error, RequestError) else str(error)).lower()

    @property
    def about(self) -> str:
        """What the answer is about, as `RequestError.about` has it; `bound` where it exceeded a bound of a setting."""
        error = self.error
        return ("bound" if error.setting else error.about) if isinstance(error, RequestError) else ""

    @property
    def is_missing_scope(self) -> bool:
        """Whether the host says that the key lacks a permission."""
        return isinstance(self.error, RequestError) and self.error.is_missing_scope

    @property
    def host(self) -> str:
        """The name of the host."""
        return host_of(self.account.base_url)

    @property
    def proxy(self) -> str | None:
        """The environment variable of the proxy that requests go through; None where they go straight."""
        scheme, proxies = urlsplit(self.account.base_url).scheme, get_environ_proxies(self.account.base_url)
        if not {scheme, "all"} & set(proxies):
            return None
        return f"{scheme.upper()}_PROXY" if scheme in proxies else "ALL_PROXY"

    def answers(self, **changed: Any) -> bool:
        """Return whether the job listing can be read with a setting changed; False where that is not tried."""
        if not self.tries:
            return False
        api = replace(self.account, **changed).api()
        try:
            api.get_page(JOBS_PATH, {"limit": 1}, attempts=1)
        except FineTuningSourceError:
            return False
        finally:
            api.close()
        return True


@dataclass(frozen=True)
class _Cause:
    """One cause of a failure.

    Attributes:
        statuses: The statuses that it shows itself by, as `_Failure.status` has them.
        advice: What to do. `{host}`, `{proxy}` and the names of an account's fields stand for the host and for the
            locations of the settings. A function returns None where the cause is another one.
        words: A pattern in what the host said.
        when: What else must be true.
    """

    statuses: Collection[int | None]
    advice: str | Callable[[_Failure], str | None]
    words: str = ""
    when: Callable[[_Failure], object] = lambda _: True

    def fits(self, failure: _Failure) -> bool:
        """Return whether a failure looks like this."""
        if failure.status not in self.statuses or not re.search(self.words, failure.words):
            return False
        return bool(self.when(failure))

    def advice_on(self, failure: _Failure) -> str | None:
        """Return what to do about a failure that looks like this."""
        if not isinstance(self.advice, str):
            return self.advice(failure)
        where = failure.account.setting_location
        names = ("base_url", "api_key", "org_id", "project_id")
        return self.advice.format(host=failure.host, proxy=failure.proxy, **{name: where(name) for name in names})


def _regional_host(failure: _Failure) -> str:
    right = failure.error.expected_host if isinstance(failure.error, RequestError) else None
    address = f"https://{right}/v1" if right else "that of its region, such as https://us.api.openai.com/v1"
    where = failure.account.setting_location("base_url")
    return f"The key is right, but its project is on another host: set {where} to {address}."


def _litellm(failure: _Failure) -> str:
    parts = urlsplit(failure.account.base_url)
    right = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/').removesuffix('/v1')}/openai_passthrough/v1"))
    return (
        "This is LiteLLM, whose own fine-tuning routes cannot serve this: "
        f"set {failure.account.setting_location('base_url')} to its pass-through, {shown_url(right)}."
    )


def _version(failure: _Failure) -> str | None:
    """Azure's `api-version` is missing, too old, or not for this path."""
    parts = urlsplit(failure.account.base_url)
    says_version = "version" in failure.words
    is_classic = parts.path.rstrip("/").endswith("/openai")
    has_version = "api-version" in parts.query
    if not (says_version or is_classic or has_version):
        return None
    without = urlunsplit(parts._replace(query=""))
    where = failure.account.setting_location("api_version")
    for base_url in (f"{without}?api-version={DATED_VERSION}", f"{without}/v1") if is_classic else (without,):
        if base_url != failure.account.base_url and failure.answers(base_url=base_url):
            what = "has an api-version that is not known, or too old" if has_version else "lacks its api-version"
            return f"The address {what}: {shown_url(base_url)} answers. Change {where}."
    return f"Check the api-version in {where}, such as {DATED_VERSION}." if says_version else None


def _path(failure: _Failure) -> str:
    where = failure.account.setting_location("base_url")
    for base_url in _other_paths(failure.account.base_url):
        if failure.answers(base_url=base_url):
            return f"The path is wrong, and {shown_url(base_url)} answers: set {where} to that."
    return f"The path of the base URL is wrong: it ends in /v1 on most hosts, in /openai/v1 on Azure's. Check {where}."


def _other_paths(base_url: str) -> Iterator[str]:
    """Yield base URLs on the same host, the likeliest first; at most four."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    candidates = [f"{path}/v1"] if not path.endswith("/v1") else []
    for end in ("/fine_tuning/jobs", "/fine_tuning", "/chat/completions", "/v1/v1", "/v1"):
        if path.endswith(end):
            candidates.append(path.removesuffix(end) + ("/v1" if end == "/v1/v1" else ""))
            break
    bare = re.sub(r"(/openai)?(/v\d+)?$", "", path)
    candidates += [f"{bare}/openai/v1", "/v1", f"{bare}/openai_passthrough/v1"]
    for candidate in list(dict.fromkeys(one for one in candidates if one != path))[:4]:
        yield urlunsplit(parts._replace(path=candidate))


def _scope(failure: _Failure) -> str:
    if failure.account.auth == ENTRA:
        return f"Give who is signed in the role {_ENTRA_ROLE} on the resource."
    return f"Give the key of {failure.account.setting_location('api_key')} the scopes {_SCOPES}."


def _header(failure: _Failure) -> str | None:
    """The host takes the key, in the other header."""
    used = failure.account.auth or ("api-key" if is_azure(failure.host) else "bearer")
    other = "bearer" if used == "api-key" else "api-key"
    if not failure.answers(auth=other):
        return None
    where = failure.account.setting_location("auth")
    return f"The key is right, but this host takes it another way: set {where}={other}."


def _has_entra(failure: _Failure) -> bool:
    return failure.account.auth == ENTRA


_NO_ANSWER = (0,)
_CAUSES = (
    _Cause(
        (None,),
        "Something on the way, such as a company's proxy, shows a certificate of its own: "
        "point REQUESTS_CA_BUNDLE at its authority's file. The key was not sent.",
        words="certificate",
        when=lambda failure: isinstance(failure.error, HostError),
    ),
    _Cause(
        _NO_ANSWER,
        "There is no host {host}: check {base_url}, or the network's DNS.",
        words="name or service not known|nodename nor servname|name resolution|getaddrinfo|no address",
    ),
    _Cause(
        _NO_ANSWER,
        "It was asked for through the proxy in {proxy}: is that right? NO_PROXY={host} goes around it.",
        when=lambda failure: failure.proxy and failure.about != "bound",
    ),
    _Cause(_NO_ANSWER, "Is the host up, and {base_url} right?", when=lambda failure: failure.about != "bound"),
    _Cause((*range(200, 600),), _litellm, words="custom_llm_provider|litellm enterprise"),
    _Cause(
        range(200, 300),
        "What answers is not an API but a page: a proxy's or a network's log-in, or a website whose API is at another "
        "address. Check {base_url}.",
        when=lambda failure: failure.about == "page",
    ),
    _Cause(range(200, 300), "Is this the address of the API? Check {base_url}."),
    _Cause(range(300, 400), "Check {base_url}."),
    _Cause((401, 403, 421), _regional_host, words="incorrect_hostname|incorrect regional hostname"),
    _Cause((400, 404), _version),
    _Cause((404,), _path),
    _Cause((401, 403), _scope, when=lambda failure: failure.is_missing_scope),
    _Cause(
        (400, 401, 403),
        "The key does not belong to the organization in {org_id}: correct or unset it.",
        words="organization",
        when=lambda failure: failure.account.org_id,
    ),
    _Cause(
        (400, 401, 403),
        "The key does not belong to the project in {project_id}: correct or unset it.",
        words="project",
        when=lambda failure: failure.account.project_id,
    ),
    _Cause(
        (401,),
        f"Azure refused the token: does who is signed in have the role {_ENTRA_ROLE} on this resource, and belong to "
        "the resource's tenant (AZURE_TENANT_ID)?",
        when=_has_entra,
    ),
    _Cause((401,), _header),
    _Cause(
        (401,),
        "The key in {api_key} looks like one of OpenAI, and the host is Azure's: it takes the resource's key.",
        when=lambda failure: is_azure(failure.host) and (failure.account.api_key or "").startswith("sk-"),
    ),
    _Cause((401,), "The key in {api_key} may not be used from this address (IP).", words=r"\bip\b"),
    _Cause((401,), "The key was refused: check {api_key}, and that it belongs to this host ({base_url})."),
    _Cause(
        (403,),
        "The host knows the key in {api_key}, but does not let it read fine-tuning jobs: "
        f"the scopes {_SCOPES} on OpenAI, a role or the firewall of the resource on Azure.",
    ),
)
"""The causes of a failure; the first that fits and has advice is taken."""
