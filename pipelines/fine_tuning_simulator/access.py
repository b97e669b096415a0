"""Who may ask: credentials and scopes."""

from collections.abc import Mapping
from typing import Any

from fine_tuning_simulator.errors import error_body
from fine_tuning_simulator.profiles import Profile

JOBS_SCOPE = "api.fine_tuning.jobs.read"
"""What a key needs to read jobs, checkpoints and events."""
FILES_SCOPE = "api.files.read"
"""What a key needs to read files."""

_SHOWN = 8


def credential(headers: Mapping[str, str], profile: Profile) -> str:
    """The key as received, or an empty string. `headers` have lower-case names."""
    if profile.accepts_api_key_header and headers.get("api-key", "").strip():
        return headers["api-key"].strip()
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def refusal(
    key: str, scope: str, api_keys: Mapping[str, frozenset[str]] | None, profile: Profile
) -> dict[str, Any] | None:
    """The body of the 401 that `key` meets when it asks for something that needs `scope`; `None` if it may."""
    known = bool(key) and (api_keys is None or key in api_keys)
    if not known and profile.refuses_as_azure:
        return {"error": {"code": "401", "message": "Access denied: the key is not valid for this resource."}}
    if not key:
        return error_body("No API key was provided: send it in the header, as Authorization: Bearer YOUR_KEY.")
    if not known:
        masked = f"{key[:_SHOWN]}****" if len(key) > 2 * _SHOWN else "****"
        return error_body(f"Incorrect API key provided: {masked}.", code="invalid_api_key")
    if api_keys is not None and scope in api_keys[key]:
        return error_body(f"You have insufficient permissions for this operation. Missing scopes: {scope}")
    return None
