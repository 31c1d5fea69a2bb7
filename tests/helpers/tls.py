"""A certificate for 127.0.0.1 and localhost, and the authority that signed it: until 2126, for tests alone."""

import ssl
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "data" / "tls"
CA = _FOLDER / "ca.pem"
CERTIFICATE = _FOLDER / "server.pem"
KEY = _FOLDER / "server.key"
# The same key, with the passphrase "secret".
CLOSED_KEY = _FOLDER / "closed.key"


def context() -> ssl.SSLContext:
    """A server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context
