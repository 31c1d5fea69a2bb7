"""Which certificate authorities are believed, as the environment says at the time of the call."""

import atexit
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError

_CHOSEN: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def bundle(usual: Callable[[], str]) -> str | None:
    """The file that the environment asks for, with the extra CA added; None for the usual ones.

    The extra CA is the host's $DSV4_EXTRA_CA or the containers' $DSV4_EXTRA_CA_FILE; `usual` says where the usual ones
    are. Raises ConfigError where a file cannot be read.
    """
    chosen = next((os.environ[name] for name in _CHOSEN if os.environ.get(name)), None)
    extra = os.environ.get("DSV4_EXTRA_CA") or os.environ.get("DSV4_EXTRA_CA_FILE")
    return (_combined(chosen, extra, usual) if extra else None) or chosen


def usual() -> str:
    """Where the authorities are that everybody believes."""
    import certifi  # noqa: PLC0415 - only for the network

    return certifi.where()


@functools.cache
def _combined(chosen: str | None, extra: str, usual: Callable[[], str]) -> str | None:
    """None where the extra file is empty: in the containers it is always there, and usually empty."""
    added = _read(extra)
    if not added.strip():
        return None
    handle, path = tempfile.mkstemp(prefix="dsv4-ca-", suffix=".pem")
    atexit.register(functools.partial(Path(path).unlink, missing_ok=True))
    with os.fdopen(handle, "wb") as file:
        file.write(_read(chosen or usual()) + b"\n" + added)
    return path


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the CA file {path} cannot be read: {error.strerror}", "mend $DSV4_EXTRA_CA or $REQUESTS_CA_BUNDLE"
        ) from None
