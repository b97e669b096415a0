"""Turn a failed request into what is wrong and which setting to change.

A table maps the status and words of an answer to advice. If another path, version or header on the same host may
make the difference, it is tried once, and what answers is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from requests.utils import get_environ_proxies

from fine_tuning_warehouse.errors import CommandError, RefusedError, UsageError
from openai_fine_tuning import ConfigurationError, FineTuningSourceError, HostError, RequestError
from openai_fine_tuning.api.auth import is_azure
from openai_fine_tuning.api.urls import JOBS_PATH

from .account import ENTRA, Account
from .azure import host_of, shown_url

_DATED_VERSION = "2024-10-21"
"""A version of Azure's classic API that knows checkpoints."""

_SCOPES = "api.fine_tuning.jobs.read and api.files.read"
_ENTRA_ROLE = "Cognitive Services OpenAI User"


def describe_settings(account: Account) -> str:
    """Return one line that says where each setting of an account was found."""
    host = account.setting_location("base_url") if "base_url" in account.locations else "the default, OpenAI"
    key = "tokens of Entra" if account.auth == ENTRA else f"key from {account.setting_location('api_key')}"
    others = {
        "org_id": "organization",
        "project_id": "project",
        "extra_headers": f"headers {', '.join(account.extra_headers)}",
        "allow_http": "plain http allowed",
    }
    found = [f"{what} from {account.setting_location(name)}" for name, what in others.items() if getattr(account, name)]
    return ", ".join([f"host from {host}", key, *found])


def to_command_error(account: Account, error: FineTuningSourceError) -> CommandError:
    """Turn a failure of the source into the error that ends a command, with what to change. Sends no request."""
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
        account: The account that was asked for its jobs.
        error: What was raised.
        tries: Find out what would answer, with at most five more requests.
    """
    if isinstance(error, RequestError):
        failure = _Failure(account, error, tries)
        advice = next((words for cause in _CAUSES if (words := cause.advice_on(failure))), "")
    else:
        advice = _CERTIFICATE if isinstance(error, HostError) and "certificate" in str(error) else ""
    return f"{str(error).rstrip('.')}. {advice}" if advice else str(error)


def advice_on_resource(account: Account, error: FineTuningSourceError) -> str:
    """Return what went wrong with one endpoint and what to change; the job listing could be read."""
    advice = ""
    if isinstance(error, RequestError) and error.is_missing_scope:
        advice = _scope(_Failure(account, error, tries=False))
    elif isinstance(error, RequestError) and error.status in (401, 403):
        advice = "The key may read jobs, but not this: check what it is restricted to."
    elif isinstance(error, RequestError) and error.status in (404, 405, 501):
        advice = "The host has no such endpoint: a sync reads everything else."
    return f"{error}. {advice}" if advice else str(error)


@dataclass(frozen=True)
class _Failure:
    """A failed request of an account."""

    account: Account
    error: RequestError
    tries: bool

    @property
    def host(self) -> str:
        """The name of the host."""
        return host_of(self.account.base_url)

    @property
    def proxy(self) -> str | None:
        """The environment variable of the proxy that requests go through; None if there is no proxy."""
        scheme, proxies = urlsplit(self.account.base_url).scheme, get_environ_proxies(self.account.base_url)
        found = next((name for name in (scheme, "all") if name in proxies), None)
        return found and f"{found.upper()}_PROXY"

    def where(self, name: str) -> str:
        """Return the location of a setting."""
        return self.account.setting_location(name)

    def answers(self, **changed: Any) -> bool:
        """Return whether the job listing can be read with a setting changed; False if `tries` is false."""
        if not self.tries:
            return False
        with replace(self.account, **changed).api() as api:
            try:
                api.get_page(JOBS_PATH, {"limit": 1}, attempts=1)
            except FineTuningSourceError:
                return False
        return True


class _Cause(NamedTuple):
    """One cause of a failure.

    Attributes:
        statuses: The statuses that it shows itself by; None if no answer came.
        advice: What to do. `{host}`, `{proxy}` and the names of an account's fields stand for the host and for the
            locations of the settings. A function returns None if the cause is another one.
        words: A pattern in what the host said.
        when: What else must be true.
    """

    statuses: Collection[int | None]
    advice: str | Callable[[_Failure], str | None]
    words: str = ""
    when: Callable[[_Failure], object] = lambda _: True

    def advice_on(self, failure: _Failure) -> str | None:
        """Return what to do about a failure; None if this is not its cause."""
        said = f"{failure.error.code or ''} {failure.error.detail}".lower()
        if failure.error.status not in self.statuses or not re.search(self.words, said) or not self.when(failure):
            return None
        if not isinstance(self.advice, str):
            return self.advice(failure)
        where = {name: failure.where(name) for name in ("base_url", "api_key", "org_id", "project_id")}
        return self.advice.format(host=failure.host, proxy=failure.proxy, **where)


def _regional_host(failure: _Failure) -> str:
    right = failure.error.expected_host
    address = f"https://{right}/v1" if right else "that of its region, such as https://us.api.openai.com/v1"
    return f"The key is right, but its project is on another host: set {failure.where('base_url')} to {address}."


def _litellm(failure: _Failure) -> str:
    parts = urlsplit(failure.account.base_url)
    right = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/').removesuffix('/v1')}/openai_passthrough/v1"))
    return (
        "These are the fine-tuning routes of LiteLLM itself, which cannot serve this: "
        f"set {failure.where('base_url')} to its pass-through, {shown_url(right)}."
    )


def _version(failure: _Failure) -> str | None:
    """Return what to do about Azure's `api-version`: it is missing, too old, or not for this path."""
    parts = urlsplit(failure.account.base_url)
    says_version = "version" in failure.error.detail.lower()
    is_classic, has_version = parts.path.rstrip("/").endswith("/openai"), "api-version" in parts.query
    if not (says_version or is_classic or has_version):
        return None
    without = urlunsplit(parts._replace(query=""))
    for base_url in (f"{without}?api-version={_DATED_VERSION}", f"{without}/v1") if is_classic else (without,):
        if base_url != failure.account.base_url and failure.answers(base_url=base_url):
            what = "has an api-version that is not known, or too old" if has_version else "lacks its api-version"
            return f"The address {what}: {shown_url(base_url)} answers. Change {failure.where('api_version')}."
    return (
        f"Check the api-version in {failure.where('api_version')}, such as {_DATED_VERSION}." if says_version else None
    )


def _path(failure: _Failure) -> str:
    where = failure.where("base_url")
    for base_url in _other_paths(failure.account.base_url):
        if failure.answers(base_url=base_url):
            return f"The path is wrong, and {shown_url(base_url)} answers: set {where} to that."
    return f"The path of the base URL is wrong: it ends in /v1 on most hosts, in /openai/v1 on Azure's. Check {where}."


def _other_paths(base_url: str) -> Iterator[str]:
    """Yield base URLs on the same host, the likeliest first; at most four."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    bare = re.sub(r"(/openai)?(/v\d+)?$", "", path)
    paths = [f"{path}/v1"] if not path.endswith("/v1") else [path.removesuffix("/v1")]
    if (request := re.search("(/fine_tuning(/jobs)?|/chat/completions)$", path)) is not None:
        paths.append(path[: request.start()])
    paths += [f"{bare}/openai/v1", "/v1", f"{bare}/openai_passthrough/v1"]
    for other in [one for one in dict.fromkeys(paths) if one != path][:4]:
        yield urlunsplit(parts._replace(path=other))


def _scope(failure: _Failure) -> str:
    if failure.account.auth == ENTRA:
        return f"Give who is signed in the role {_ENTRA_ROLE} on the resource."
    return f"Give the key of {failure.where('api_key')} the scopes {_SCOPES}."


def _header(failure: _Failure) -> str | None:
    """Return what to set if the host takes the key in the other header; else None."""
    used = failure.account.auth or ("api-key" if is_azure(failure.host) else "bearer")
    other = "bearer" if used == "api-key" else "api-key"
    if not failure.answers(auth=other):
        return None
    return f"The key is right, but this host takes it another way: set {failure.where('auth')}={other}."


_CERTIFICATE = (
    "Something on the way, such as a company's proxy, shows a certificate of its own: "
    "point REQUESTS_CA_BUNDLE at its authority's file. The key was not sent."
)
_NO_SUCH_NAME = "name or service not known|nodename nor servname|name resolution|getaddrinfo|no address"
_CAUSES = (
    _Cause([None], "There is no host {host}: check {base_url}, or the network's DNS.", _NO_SUCH_NAME),
    _Cause(
        [None],
        "It was asked for through the proxy in {proxy}: is that right? NO_PROXY={host} goes around it.",
        when=lambda failure: failure.proxy and not failure.error.setting,
    ),
    _Cause([None], "Is the host up, and {base_url} right?", when=lambda failure: not failure.error.setting),
    _Cause(range(200, 600), _litellm, "custom_llm_provider|litellm enterprise"),
    _Cause(
        range(200, 300),
        "What answers is not an API but a page: a proxy's or a network's log-in, or a website that has its API at "
        "another address. Check {base_url}.",
        when=lambda failure: failure.error.about == "page",
    ),
    _Cause(range(200, 300), "Is this the address of the API? Check {base_url}."),
    _Cause(range(300, 400), "Check {base_url}."),
    _Cause([401, 403, 421], _regional_host, "incorrect_hostname|incorrect regional hostname"),
    _Cause([400, 404], _version),
    _Cause([404], _path),
    _Cause([401, 403], _scope, when=lambda failure: failure.error.is_missing_scope),
    _Cause(
        [400, 401, 403],
        "The key does not belong to the organization in {org_id}: correct or unset it.",
        "organization",
        when=lambda failure: failure.account.org_id,
    ),
    _Cause(
        [400, 401, 403],
        "The key does not belong to the project in {project_id}: correct or unset it.",
        "project",
        when=lambda failure: failure.account.project_id,
    ),
    _Cause(
        [401],
        f"Azure refused the token: does who is signed in have the role {_ENTRA_ROLE} on this resource, and belong to "
        "the resource's tenant (AZURE_TENANT_ID)?",
        when=lambda failure: failure.account.auth == ENTRA,
    ),
    _Cause([401], _header),
    _Cause(
        [401],
        "The key in {api_key} looks like one of OpenAI, and the host is Azure's: it takes the resource's key.",
        when=lambda failure: is_azure(failure.host) and (failure.account.api_key or "").startswith("sk-"),
    ),
    _Cause([401], "The key in {api_key} may not be used from this address (IP).", r"\bip\b"),
    _Cause([401], "The key was refused: check {api_key}, and that it belongs to this host ({base_url})."),
    _Cause(
        [403],
        "The host knows the key in {api_key}, but does not let it read fine-tuning jobs: "
        f"the scopes {_SCOPES} on OpenAI, a role or the firewall of the resource on Azure.",
    ),
)
"""The causes of a failure; the first that fits and has advice is taken."""
