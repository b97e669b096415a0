"""What is wrong with a host, a path, a key, a scope or a version: from a failure to the setting that is to be changed.

A failure alone rarely tells. Where another path, version or header on the same host would make the difference, that is
tried once, and what answers is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from requests.utils import get_environ_proxies

from fine_tuning_warehouse.errors import CommandError, RefusedError, UsageError
from openai_fine_tuning import ConfigurationError, FineTuningSourceError, HostError, RequestError
from openai_fine_tuning.api.auth import is_azure
from openai_fine_tuning.api.urls import JOBS_PATH

from .account import ENTRA, Account
from .azure import shown_url

DATED_VERSION = "2024-10-21"
"""A version of Azure's classic API that knows checkpoints."""

_Answers = Callable[..., bool]
"""Whether the job listing can be read with a setting of the account changed; False where that is not known."""

_NO_SUCH_NAME = ("name or service not known", "nodename nor servname", "name resolution", "getaddrinfo", "no address")
_SCOPES = "api.fine_tuning.jobs.read and api.files.read"
_ENTRA_ROLE = "Cognitive Services OpenAI User"


def told_settings(account: Account) -> str:
    """Where each setting of an account was found, in a line."""
    key = "tokens of Entra" if account.auth == ENTRA else f"key from {account.place_of('api_key')}"
    default = "the default, OpenAI" if "base_url" not in account.origins else account.place_of("base_url")
    parts = [f"host from {default}", key]
    parts += [
        f"{words} from {account.place_of(name)}"
        for name, words in (("org_id", "organisation"), ("project_id", "project"))
        if getattr(account, name)
    ]
    return ", ".join(parts)


def told_failure(account: Account, error: FineTuningSourceError) -> CommandError:
    """A failure of the source as one of a command: what is wrong, and what to change; nothing more is requested.

    Args:
        account: Whose history was read.
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
    """What was found wrong with the job listing, and what to change.

    Args:
        account: Whose listing.
        error: What came of it.
        tries: Find out what would answer, with at most four more requests.
    """
    answers = _is_answered if tries else _is_unasked
    advice = next((told for judge in _JUDGES if (told := judge(account, error, answers)) is not None), None)
    return f"{str(error).rstrip('.')}. {advice}" if advice else str(error)


def is_listing(content: Any) -> bool:
    """Whether an answer is a page of a listing."""
    return isinstance(content, dict) and isinstance(content.get("data"), list)


def advice_on_resource(account: Account, error: FineTuningSourceError) -> str:
    """The same for one endpoint, where the job listing could be read."""
    if isinstance(error, RequestError) and error.is_missing_scope:
        return f"{error}. {_scope_advice(account)}"
    if isinstance(error, RequestError) and error.status in (401, 403):
        return f"{error}. The key may read jobs, but not this: check what it is restricted to."
    if isinstance(error, RequestError) and error.status in (404, 405, 501):
        return f"{error}. The host has no such endpoint: a sync reads everything else."
    return str(error)


# from the failure to its cause, the first that fits ------------------------------------------------------------------


def _certificate(_: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, HostError) or "certificate" not in str(error):
        return None
    return (
        "Something on the way, such as a company's proxy, shows a certificate of its own: "
        "point REQUESTS_CA_BUNDLE at its authority's file. The key was not sent."
    )


def _unreachable(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or error.status is not None:
        return None
    host = urlsplit(account.base_url).hostname or ""
    if any(words in error.detail.lower() for words in _NO_SUCH_NAME):
        return f"There is no host {host}: check {account.place_of('base_url')}, or the network's DNS."
    proxy = _proxy(account.base_url)
    if proxy is not None:
        return f"It was asked for through the proxy in {proxy}: is that right? NO_PROXY={host} goes around it."
    return f"Is the host up, and {account.place_of('base_url')} right?"


def _page(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or error.status is None or not 200 <= error.status < 300:
        return None
    return (
        f"What answers is no API but a page: a proxy's or a network's log-in, or a website whose API lives at another "
        f"address. Check {account.place_of('base_url')}."
    )


def _redirect(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if isinstance(error, RequestError) and error.status is not None and 300 <= error.status < 400:
        return f"Check {account.place_of('base_url')}."
    return None


def _version(account: Account, error: FineTuningSourceError, answers: _Answers) -> str | None:
    """Azure's `api-version`: missing, too old, or not for this path."""
    parts = urlsplit(account.base_url)
    if not isinstance(error, RequestError) or error.status not in (400, 404):
        return None
    says_version = "version" in error.detail.lower()
    is_classic = parts.path.rstrip("/").endswith("/openai")
    if not (says_version or is_classic or "api-version" in parts.query):
        return None
    without = urlunsplit(parts._replace(query=""))
    v1 = f"{without}/v1" if is_classic else without
    for base_url in dict.fromkeys((f"{without}?api-version={DATED_VERSION}" if is_classic else without, v1)):
        if base_url != account.base_url and answers(account, base_url=base_url):
            what = (
                "has an api-version that is not known, or too old"
                if "api-version" in parts.query
                else "lacks its api-version"
            )
            return f"The address {what}: {shown_url(base_url)} answers. Change {account.place_of('api_version')}."
    if says_version:
        return f"Check the api-version in {account.place_of('api_version')}, such as {DATED_VERSION}."
    return None


def _path(account: Account, error: FineTuningSourceError, answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or error.status != 404:
        return None
    where = account.place_of("base_url")
    for base_url in _other_paths(account.base_url):
        if answers(account, base_url=base_url):
            return f"The path is wrong, and {shown_url(base_url)} answers: set {where} to that."
    return f"The path of the base URL is wrong: it ends in /v1 on most hosts, in /openai/v1 on Azure's. Check {where}."


def _scope(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or not error.is_missing_scope:
        return None
    return _scope_advice(account)


def _scope_advice(account: Account) -> str:
    if account.auth == ENTRA:
        return f"Give who is signed in the role {_ENTRA_ROLE} on the resource."
    return f"Give the key of {account.place_of('api_key')} the scopes {_SCOPES}."


def _organisation(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or error.status not in (400, 401, 403):
        return None
    words = f"{error.code or ''} {error.detail}".lower()
    for name, what in (("org_id", "organization"), ("project_id", "project")):
        if getattr(account, name) and what in words:
            return f"The key is not of the {what} in {account.place_of(name)}: correct or unset it."
    return None


def _header(account: Account, error: FineTuningSourceError, answers: _Answers) -> str | None:
    """A key that the host takes, in the other header."""
    if not isinstance(error, RequestError) or error.status != 401 or account.auth == ENTRA:
        return None
    host = urlsplit(account.base_url).hostname or ""
    used = account.auth or ("api-key" if is_azure(host) else "bearer")
    other = "bearer" if used == "api-key" else "api-key"
    if answers(account, auth=other):
        return f"The key is right, but this host takes it another way: set {account.place_of('auth')}={other}."
    return None


def _key(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or error.status != 401:
        return None
    if account.auth == ENTRA:
        return (
            f"Azure refused the token: has who is signed in the role {_ENTRA_ROLE} on this resource, and is it in the "
            "resource's tenant (AZURE_TENANT_ID)?"
        )
    where, host = account.place_of("api_key"), urlsplit(account.base_url).hostname or ""
    if is_azure(host) and (account.api_key or "").startswith("sk-"):
        return f"The key in {where} looks like one of OpenAI, and the host is Azure's: it takes the resource's key."
    if "ip" in error.detail.replace(".", " ").lower().split():
        return f"The key in {where} may not be used from this address (IP)."
    return f"The key was refused: check {where}, and that it is of this host ({account.place_of('base_url')})."


def _forbidden(account: Account, error: FineTuningSourceError, _answers: _Answers) -> str | None:
    if not isinstance(error, RequestError) or error.status != 403:
        return None
    return (
        f"The host knows the key in {account.place_of('api_key')}, but does not let it read fine-tuning jobs: "
        f"the scopes {_SCOPES} on OpenAI, a role or the firewall of the resource on Azure."
    )


_JUDGES: tuple[Callable[[Account, FineTuningSourceError, _Answers], str | None], ...] = (
    _certificate,
    _unreachable,
    _page,
    _redirect,
    _version,
    _path,
    _scope,
    _organisation,
    _header,
    _key,
    _forbidden,
)


# what is tried -------------------------------------------------------------------------------------------------------


def _is_answered(account: Account, **changed: Any) -> bool:
    """Whether the job listing can be read with a setting changed."""
    api = replace(account, **changed).api()
    try:
        return is_listing(api.get_json(JOBS_PATH, {"limit": 1}, attempts=1).content)
    except FineTuningSourceError:
        return False
    finally:
        api.close()


def _is_unasked(_account: Account, **_changed: Any) -> bool:
    return False


def _other_paths(base_url: str) -> Iterator[str]:
    """Base URLs on the same host, the likeliest first; at most three."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/")
    candidates = [f"{path}/v1"] if not path.endswith("/v1") else []
    for end in ("/fine_tuning/jobs", "/fine_tuning", "/chat/completions", "/v1/v1", "/v1"):
        if path.endswith(end):
            candidates.append(path.removesuffix(end) + ("/v1" if end == "/v1/v1" else ""))
            break
    candidates += [re.sub(r"(/openai)?(/v\d+)?$", "", path) + "/openai/v1", "/v1"]
    for candidate in list(dict.fromkeys(one for one in candidates if one != path))[:3]:
        yield urlunsplit(parts._replace(path=candidate))


def _proxy(base_url: str) -> str | None:
    """The environment variable of the proxy that requests to a host go through; None where they go straight."""
    parts = urlsplit(base_url)
    proxies = get_environ_proxies(base_url)
    if not {parts.scheme, "all"} & set(proxies):
        return None
    return f"{parts.scheme.upper()}_PROXY" if parts.scheme in proxies else "ALL_PROXY"
