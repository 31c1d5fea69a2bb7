"""Ask a URL of this container once. Plain sockets: it runs every second while an engine loads, so imports count."""

import argparse
import socket
from urllib.parse import urlsplit

from dsv4_stack.errors import NotReadyError

TIMEOUT_S = 8.0
_MOST = 4096


def ask(url: str, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Status and text of a GET. Raises NotReadyError where nobody answers with one."""
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    try:
        with socket.create_connection(address, timeout_s) as connection:
            connection.sendall(request.encode())
            answer = connection.makefile("rb").read(_MOST)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode(errors="replace").strip()
    except OSError as error:
        raise NotReadyError(f"{url} does not answer: {error}") from None
    except (IndexError, ValueError):
        raise NotReadyError(f"{url} does not speak HTTP") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="for example http://127.0.0.1:8001/ready")


def run(args: argparse.Namespace) -> None:
    status, text = ask(args.url)
    if status != 200:
        raise NotReadyError(text or f"{args.url} answers {status}")
    print(text or "ok")
