"""Signed addresses of files, as a Hub's content delivery network has them: they need no token, and they expire."""

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from dsv4_stack.guest.demo.faults import Redirect

PREFIX: Final = "/cdn/"
_HOUR_S: Final = 3600.0


@dataclass(kw_only=True)
class _Grant:
    """`expires` is by the monotonic clock."""

    name: str
    query: str
    expires: float
    uses: int | None


class Cdn:
    """Safe for all threads."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._grants: dict[str, _Grant] = {}
        self._lock = threading.Lock()

    def grant(self, name: str, redirect: Redirect) -> str:
        """Path and query where this file can be read for a while."""
        lifetime_s = _HOUR_S if redirect.lifetime_s is None else redirect.lifetime_s
        path = PREFIX + secrets.token_urlsafe(16)
        query = self._query(path, int(time.time() + lifetime_s))
        with self._lock:
            self._grants[path] = _Grant(
                name=name, query=query, expires=time.monotonic() + lifetime_s, uses=redirect.uses
            )
        return f"{path}?{query}"

    def open(self, path: str, query: str) -> str | None:
        """The file that lies there; None where the address is unknown, altered, expired or used up."""
        with self._lock:
            grant = self._grants.get(path)
            if grant is None or not hmac.compare_digest(grant.query.encode(), query.encode()):
                return None
            if grant.uses == 0 or time.monotonic() >= grant.expires:
                return None
            if grant.uses is not None:
                grant.uses -= 1
            return grant.name

    def _query(self, path: str, expires: int) -> str:
        signature = hmac.new(self._key, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()
        return urlencode({"Expires": expires, "Signature": signature, "Key-Pair-Id": "DEMO"})
