"""A certificate for 127.0.0.1 and localhost, and the authority that signed it: until 2126, for tests alone."""

import ssl
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "data" / "tls"
CA = _FOLDER / "ca.pem"


def context() -> ssl.SSLContext:
    """A server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_FOLDER / "server.pem", _FOLDER / "server.key")
    return context
