"""Who may call: host names that the service answers to, and a key for each role."""

import hmac
import os
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

TOKEN_VARIABLE = "ONESEARCH_ADMIN_TOKEN"
SEARCH_VARIABLE, EVENTS_VARIABLE = "ONESEARCH_SEARCH_KEY", "ONESEARCH_EVENTS_KEY"
SEARCHES = ("/search", "/suggest", "/multi-search", "/agent/search")
Role = Literal["search", "events", "admin"]


@dataclass(frozen=True, repr=False)
class Keys:
    """The key of each role, sent as ``Authorization: Bearer KEY``. Never shown: not in logs, errors or tracebacks.

    Attributes:
        search: for searches and items; None leaves them open.
        events: for events; None leaves them open.
        admin: for changes of the catalogue, for rules and for deleting shoppers; None switches them off.
    """

    search: str | None = None
    events: str | None = None
    admin: str | None = None

    def problem(self, role: Role, authorization: bytes) -> tuple[int, str] | None:
        """Why a call with this header may not pass, as status and words; None where it may."""
        key: str | None = getattr(self, role)
        if key is None:  # no admin token, no changes: never open by mistake
            off = "admin calls are off: start the service with ONESEARCH_ADMIN_TOKEN set"
            return (403, off) if role == "admin" else None
        name = "admin token" if role == "admin" else f"{role} key"
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return 401, f"needs the header 'Authorization: Bearer <{name}>'"
        # In constant time, so that a wrong key does not tell how much of it is right.
        return None if hmac.compare_digest(given.strip(), key.encode()) else (403, f"wrong {name}")


def environment_key(variable: str) -> str | None:
    """A key that the environment holds; None where the variable is not set, or blank."""
    return os.environ.get(variable, "").strip() or None


def role_of(method: str, path: str) -> Role | None:
    """The role that a call needs; None for what is open: health, measurements, the page and what it shows."""
    if path == "/items":
        return "admin" if method in ("POST", "PATCH") else None
    if path.startswith("/users/"):
        return "admin" if method == "DELETE" else None
    if path == "/events":
        return "events"
    if path == "/rules" or path.startswith("/rules/"):
        return "admin"
    return "search" if path in SEARCHES or path.startswith(("/items/", "/indexes/", "/agent/")) else None


def host_name(header: bytes) -> str:
    """The name in a ``Host`` header, without its port; "" for what is none."""
    try:
        return urlsplit(b"//" + header).hostname.decode("ascii")  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return ""
