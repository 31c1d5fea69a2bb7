"""The proxy that the environment names for a URL."""

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_of(url: str) -> str:
    """As a URL; "" for none. Raises ValueError where `url` is none."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or _is_near(parts.hostname or "", parts.port):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_near(host: str, port: int | None) -> bool:
    """$NO_PROXY has hosts, with a port or without, and networks, which urllib knows nothing of and others do."""
    if proxy_bypass(host) or (port and proxy_bypass(f"{host}:{port}")):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _networks(getproxies().get("no", "")))


def _networks(text: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for word in text.split(","):
        if "/" in word:
            with suppress(ValueError):
                yield ipaddress.ip_network(word.strip(), strict=False)
