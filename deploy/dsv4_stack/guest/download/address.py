"""Where a file's bytes are: at the Hub's own URL, and where that redirects to for a while."""

import threading
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit


class Address:
    """One file's, shared by all its connections. Headers of the Hub's URL, a token, stay with its host."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._headers = headers
        self._signed = ""
        self._lock = threading.Lock()

    def current(self) -> tuple[str, Mapping[str, str], bool]:
        """URL, headers, and whether it is one that the Hub redirected to."""
        with self._lock:
            return (
                (self._signed, self._headers_for(self._signed), True)
                if self._signed
                else (self.url, self._headers, False)
            )

    def follow(self, asked: str, location: str) -> None:
        """What was asked redirects to `location`. Raises ValueError where that is no address."""
        signed = urljoin(asked, location)
        parts = urlsplit(signed)
        if parts.port == 0 or not parts.hostname:
            raise ValueError("no host")
        with self._lock:
            self._signed = signed

    def forget(self, asked: str) -> None:
        """A signed URL that is refused has expired; the next request asks the Hub for another."""
        with self._lock:
            if self._signed == asked:
                self._signed = ""

    def _headers_for(self, url: str) -> Mapping[str, str]:
        if _origin(url) == _origin(self.url):
            return self._headers
        return {name: value for name, value in self._headers.items() if name.lower() != "authorization"}


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
