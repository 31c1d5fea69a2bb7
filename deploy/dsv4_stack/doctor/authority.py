"""The extra certificate authority, where a TLS proxy stands between this machine and the network."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.errors import ConfigError

SUBJECT: Final = "extra CA"
_MEND: Final = "name a PEM file in $DSV4_EXTRA_CA that begins with -----BEGIN CERTIFICATE-----, or unset it"


def findings() -> Iterator[Finding]:
    name = os.environ.get("DSV4_EXTRA_CA")
    if name:
        yield _of(Path(name).expanduser())


def _of(path: Path) -> Finding:
    try:
        content = path.read_bytes()
    except OSError as error:
        return wrong(SUBJECT, f"{path} cannot be read: {error.strerror}", _MEND, ConfigError)
    number = _certificates(content)
    if not number:
        return wrong(SUBJECT, f"{path} has no certificate in PEM that can be loaded", _MEND, ConfigError)
    return ok(SUBJECT, f"{path}, certificates: {number}")


def _certificates(content: bytes) -> int:
    """How many OpenSSL loads; 0 where it stumbles over any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (UnicodeDecodeError, ValueError, ssl.SSLError):
        return 0
    return context.cert_store_stats()["x509"]
