"""One file by hf_xet: `python -m dsv4_stack.guest.xet_client`, a process that `xet` starts, watches and ends.

It says on its standard output, a JSON object a line, how many bytes are `there`, and in the end an exit `code`.
"""

import ctypes
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from dsv4_stack.errors import Dsv4Error, NetworkError, NotAllowedError, NotFoundError
from dsv4_stack.guest import access, http
from dsv4_stack.guest.files import writing

PART: Final = "part-"
"""Begins the name of the file that is being written; the xet hash of what it is to become follows."""

# A connection holds a xorb, which is no larger: https://huggingface.co/docs/xet/xorb
_XORB: Final = 64 << 20
_SILENCE: Final = timedelta(seconds=30)
_PR_SET_PDEATHSIG: Final = 1
_SIGNATURE: Final = re.compile(r"\?[^\s\"')]+")
KEPT: Final = "what came is kept; check the network, then run it again: it goes on where it stopped"

Say = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Errand:
    """Bring `size` bytes to `target`, over so many `connections` at once, for the process `parent`.

    `room` is a folder on the same volume for what is not whole yet.
    """

    repo: str
    revision: str
    path: str
    size: int
    target: Path
    room: Path
    connections: int
    parent: int

    def as_word(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def of_word(cls, word: str) -> "Errand":
        fields = json.loads(word)
        return cls(**fields | {name: Path(fields[name]) for name in ("target", "room")})


def main(word: str) -> None:
    """Its last word is an error's exit code, or 0: what hf_xet does while the process ends is of no account."""
    errand = Errand.of_word(word)
    _die_with(errand.parent)
    voice = os.dup(1)
    os.dup2(2, 1)  # hf_xet may log to the standard output

    def say(**fields: object) -> None:
        os.write(voice, json.dumps(fields).encode() + b"\n")

    try:
        bring(errand, say)
    except Dsv4Error as error:
        say(code=error.exit_code, message=error.message, next_step=error.next_step)
    else:
        say(code=0)


def bring(errand: Errand, say: Say) -> None:
    """Go on with what an earlier client left of the same file, and rename it when it is whole.

    Raises as `xet.fetch`.
    """
    from dsv4_stack.guest import hub  # noqa: PLC0415 - only this process needs the Hub's client

    if bundle := http.ca_bundle():
        os.environ["SSL_CERT_FILE"] = bundle  # hf_xet knows no other way
    name = hub.xet_hash(errand.repo, errand.revision, errand.path)
    part = _part(errand, name)
    there = part.stat().st_size if part.exists() else 0
    say(there=there)
    if there < errand.size:
        there = _append(part, _stream(errand, name, there), errand.path, there, say)
    if there < errand.size:
        # In hf_xet 1.8.0 a stream that fails now and then ends as if it were whole.
        raise NetworkError(f"{errand.path}: xet ended after {there} of {errand.size} bytes, and does not say why", KEPT)
    with writing(errand.target):
        part.replace(errand.target)


def limited(config: Any, connections: int) -> Any:  # noqa: ANN401 - hf_xet has no types
    """hf_xet's configuration, kept small; what the environment makes smaller still, stays so."""
    most = {
        "client.ac_initial_download_concurrency": connections,
        "client.ac_max_download_concurrency": connections,
        "client.ac_min_download_concurrency": connections,
        "client.connect_timeout": _SILENCE,
        "client.read_timeout": _SILENCE,
        "reconstruction.download_buffer_limit": connections * _XORB,
        "reconstruction.download_buffer_perfile_size": connections * _XORB,
        "reconstruction.download_buffer_size": connections * _XORB,
    }
    return config.with_config({name: min(value, config.get(name)) for name, value in most.items()})


def _part(errand: Errand, name: str) -> Path:
    """Where the file is written; what was left of another one is removed."""
    part = errand.room / f"{PART}{name}"
    with writing(part):
        for left in errand.room.glob(f"{PART}*"):
            if left != part or left.stat().st_size > errand.size:
                left.unlink()
    return part


def _append(part: Path, stream: Iterator[bytes], path: str, there: int, say: Say) -> int:
    """How many bytes are there in the end."""
    while True:
        with named(path):
            block = next(stream, b"")
        if not block:
            return there
        with writing(part), part.open("ab") as file:
            file.write(block)
        there += len(block)
        del block  # up to 64 MiB, which would stay while the next one is made
        say(there=there)


def _stream(errand: Errand, name: str, start: int) -> Iterator[bytes]:
    """The file's bytes from `start` on, in order."""
    token_url = f"{access.endpoint()}/api/models/{errand.repo}/xet-read-token/{quote(errand.revision, safe='')}"
    with named(errand.path):
        xet = _library()
        session = xet.XetSession(limited(xet.XetConfig(), errand.connections))
        group = session.new_download_stream_group(token_refresh_url=token_url, token_refresh_headers=access.bearer())
        stream: Iterator[bytes] = group.download_stream(xet.XetFileInfo(name, errand.size), start=start)
    return stream


def _library() -> Any:  # noqa: ANN401 - a module without types
    try:
        return importlib.import_module("hf_xet")
    except ImportError as error:
        raise Dsv4Error(f"hf_xet cannot be used here: {error}", "install it: pip install hf-xet") from None


@contextmanager
def named(path: str) -> Iterator[None]:
    """hf_xet's exceptions by our names. It raises anything, also for what passes by itself."""
    try:
        yield
    except Dsv4Error:
        raise
    except Exception as error:
        # The URLs in it may be signed.
        reason = f"{path} by xet: {type(error).__name__}: {_SIGNATURE.sub('', str(error))}"
        if type(error).__name__ == "XetAuthenticationError":
            raise NotAllowedError(reason, "set HF_TOKEN to a token that may read it") from None
        if type(error).__name__ == "XetObjectNotFoundError":
            raise NotFoundError(reason, "check the name and the revision") from None
        raise NetworkError(reason, KEPT) from None


def _die_with(parent: int) -> None:
    """Not to go on for nobody; elsewhere than on Linux it would end when the file is whole."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
