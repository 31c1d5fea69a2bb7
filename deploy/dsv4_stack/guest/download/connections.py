"""Answers to ranged requests over connections that are kept, and all of them ended at once."""

import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urlsplit

import urllib3

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest import ca
from dsv4_stack.guest.download.answers import Answer, Span, naming_failures
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.proxies import proxy_of

# It logs whole URLs, which may be signed.
logging.getLogger("urllib3").setLevel(logging.ERROR)


class Connections:
    """Keeps connections open between requests. Proxies and CAs are those of the environment; safe for all threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._context: ssl.SSLContext | None = None
        self._managers: dict[tuple[str, bool], urllib3.PoolManager] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_aborted = False

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], span: Span) -> Iterator[Answer]:
        """Ask for a span of a file; redirects are not followed.

        Raises BrokenError, UntrustedError, BlockedError, ConfigError.
        """
        plain = {"Accept-Encoding": "identity", "User-Agent": "dsv4-stack", **headers}
        if not span.is_whole:
            plain["Range"] = f"bytes={span.start}-{span.end - 1}"
        timeout = urllib3.Timeout(connect=self._limits.connect_s, read=self._limits.stall_s)
        with naming_failures():
            response = self._manager(url).request(
                "GET", url, headers=plain, preload_content=False, redirect=False, retries=False, timeout=timeout
            )
        answer = Answer(response, self._limits, len(self._open) + 1)
        with self._registered(response):
            try:
                yield answer
            finally:
                if answer.is_read:
                    response.release_conn()
                else:
                    response.close()

    def abort(self) -> None:
        """Wake every thread that waits for bytes: its connection is cut."""
        with self._lock:
            self._is_aborted = True
            for twin in self._open:
                _cut(twin)

    def close(self) -> None:
        with self._lock:
            for manager in self._managers.values():
                # `manager.clear` only forgets them: they stay open for as long as an error or a thread knows them.
                for pool in map(manager.pools.get, manager.pools.keys()):
                    if pool:
                        pool.close()

    @contextmanager
    def _registered(self, response: urllib3.BaseHTTPResponse) -> Iterator[None]:
        # Its own handle is gone where the server will close, and a TLS socket's shutdown is not for two threads: the
        # other one would go on to read what is encrypted as if it were not.
        twin = socket.socket(fileno=os.dup(response.fileno()))
        with self._lock:
            self._open.add(twin)
            if self._is_aborted:
                _cut(twin)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(twin)
            twin.close()

    def _manager(self, url: str) -> urllib3.PoolManager:
        """The pools for this URL's proxy, or the direct ones."""
        proxy = proxy_of(url)
        is_tls = any(each.lower().startswith("https:") for each in (url, proxy))
        with self._lock:
            if (proxy, is_tls) not in self._managers:
                self._managers[proxy, is_tls] = self._make_manager(proxy, is_tls=is_tls)
            return self._managers[proxy, is_tls]

    def _make_manager(self, proxy: str, *, is_tls: bool) -> urllib3.PoolManager:
        if is_tls and self._context is None:
            # One for all connections: each costs a megabyte for its authorities.
            self._context = _make_context()
        if not proxy:
            return urllib3.PoolManager(maxsize=self._limits.jobs, ssl_context=self._context)
        try:
            return urllib3.ProxyManager(
                proxy,
                maxsize=self._limits.jobs,
                ssl_context=self._context,
                proxy_ssl_context=self._context,
                proxy_headers=_proxy_headers(proxy),
            )
        except ValueError:
            # Not in its words, which may have a password in them.
            raise ConfigError(
                "the proxy is not an address that begins with http:// or https://",
                "mend $HTTPS_PROXY, $HTTP_PROXY or $ALL_PROXY",
            ) from None


def _make_context() -> ssl.SSLContext:
    """Raises ConfigError."""
    path = ca.bundle(ca.usual) or ca.usual()
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ConfigError(
            f"the CA file {path} cannot be used: {error.strerror}", "mend $DSV4_EXTRA_CA or $REQUESTS_CA_BUNDLE"
        ) from None


def _proxy_headers(proxy: str) -> Mapping[str, str] | None:
    parts = urlsplit(proxy)
    if not parts.username:
        return None
    return urllib3.make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")


def _cut(twin: socket.socket) -> None:
    """Closing alone does not wake a thread that waits in recv; shutting the socket down does."""
    with suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)
