"""Ports at which nobody answers."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

HOST = "127.0.0.1"
_FULL_S = 0.05
_MOST = 16


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes no more connections and refuses none: connect() waits, as for a host that drops packets."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(_MOST):
            caller = stack.enter_context(socket.socket())
            caller.settimeout(_FULL_S)
            try:
                caller.connect((HOST, port))
            except TimeoutError:
                break
        else:
            raise OSError(f"{port} took {_MOST} connections with a backlog of none")
        yield port


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections: it is taken, so that nobody else comes to listen there."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield taken.getsockname()[1]
