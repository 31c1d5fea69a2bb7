"""Files that plain HTTP refuses, by the Hub's xet client in a process of its own.

The client takes memory, and it has hung (https://github.com/huggingface/xet-core/issues/850, issues/883); a process
can be watched and ended, and what it brought is kept for the next one.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dsv4_stack.errors import Dsv4Error, NetworkError, NotAllowedError, of_exit_code
from dsv4_stack.guest.digests import Advance
from dsv4_stack.guest.files import writing
from dsv4_stack.guest.xet_client import KEPT, PART, Errand

ROOM: Final = ".xet"
"""The suffix of the folder next to a target where it is made. It stays only where there is something to go on with."""

_CACHE: Final = "cache"
_CONNECTIONS: Final = 4
_LOOK_EVERY_S: Final = 0.2
# Not every hf_xet lets a cap stand beside them: https://github.com/unslothai/unsloth-zoo/pull/972
_GREEDY: Final = ("HF_XET_HIGH_PERFORMANCE", "HF_XET_HP")
_TRUE: Final = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """A client that writes nothing for `stall_s` is ended; so many `attempts` in a row that bring nothing end it all.

    What stalls in the network the client notices earlier by itself. It writes a xorb, up to 64 MiB, when it is whole,
    so `stall_s` says how slow a line may be.
    """

    stall_s: float = 180.0
    attempts: int = 3
    pause_s: float = 5.0


PATIENCE: Final = Patience()


class _DiedError(Dsv4Error):
    """The client ended without a word: it crashed, or was killed for its memory, and fewer connections take less."""


def fetch(
    repo: str,
    revision: str,
    path: str,
    *,
    size: int,
    target: Path,
    advance: Advance,
    patience: Patience = PATIENCE,
) -> None:
    """Bring one file to `target`, unproven: the caller hashes it.

    `advance` is told of all its bytes, also of those that an earlier run left, and several times a second of none; it
    may raise to stop the work. Raises NetworkError, NotAllowedError, NotFoundError, ConfigError, Dsv4Error, and as
    `files.writing`.
    """
    if os.environ.get("HF_HUB_DISABLE_XET", "").upper() in _TRUE:
        raise NotAllowedError(
            f"{path}: plain HTTP is refused, and HF_HUB_DISABLE_XET forbids the other way", "unset HF_HUB_DISABLE_XET"
        )
    room = _room(target)
    errand = Errand(
        repo=repo,
        revision=revision,
        path=path,
        size=size,
        target=target,
        room=room,
        connections=_CONNECTIONS,
        parent=os.getpid(),
    )
    count = failures = 0
    while True:
        before = count
        try:
            with _client(replace(errand, connections=max(1, _CONNECTIONS >> failures))) as client:
                for now in _counts(client, path, patience.stall_s):
                    advance(max(0, now - count))
                    count = max(count, now)
        except (NetworkError, _DiedError):
            failures = 1 if count > before else failures + 1
            if failures >= patience.attempts:
                raise
            _pause(patience.pause_s, advance)
        else:
            return


def parts(target: Path) -> list[Path]:
    """What earlier runs left of the file, or of others that had its name."""
    return sorted(_room(target).glob(f"{PART}*"))


def there(target: Path, size: int) -> int:
    """The bytes that an earlier run left of a file of `size` bytes, as far as that can be said offline; or 0."""
    return max((found for part in parts(target) if (found := part.lstat().st_size) <= size), default=0)


def _room(target: Path) -> Path:
    return target.with_name(target.name + ROOM)


def environment(cache: Path) -> dict[str, str]:
    """The client's: it writes nothing outside of `cache` but the file, tells nobody, and does not void its caps."""
    kept = {name: value for name, value in os.environ.items() if name not in _GREEDY}
    return kept | {
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_XET_CACHE": str(cache),
        "HF_XET_TELEMETRY_ENABLED": "0",
        "TMPDIR": str(cache),
    }


@contextmanager
def _client(errand: Errand) -> Iterator["subprocess.Popen[bytes]"]:
    """A running client, which does not outlive the block. It finds the token as we do: everybody may see its words."""
    cache = errand.room / _CACHE
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    try:
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "dsv4_stack.guest.xet_client", errand.as_word()],
            env=environment(cache.absolute()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        ) as client:
            try:
                yield client
            finally:
                client.kill()
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        with suppress(OSError):
            errand.room.rmdir()


def _counts(client: "subprocess.Popen[bytes]", path: str, stall_s: float) -> Iterator[int]:
    """How many bytes are there, again and again until all are. Raises what the client met, NetworkError, Dsv4Error."""
    count, moved = 0, time.monotonic()
    for said in _said(client):
        if code := said.get("code"):
            raise of_exit_code(code)(said["message"], said["next_step"])
        if code == 0:
            return
        if said.get("there", 0) > count:
            count, moved = said["there"], time.monotonic()
        elif time.monotonic() - moved > stall_s:
            raise NetworkError(f"{path}: the xet client brought nothing for {stall_s:g} s", KEPT)
        yield count
    code = client.wait()
    raise _DiedError(
        f"{path}: the xet client ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}",
        "what came is kept; give it 512 MiB of memory, then run it again: it goes on where it stopped",
    )


def _said(client: "subprocess.Popen[bytes]") -> Iterator[Mapping[str, Any]]:
    """What the client says, and nothing again and again while it is silent."""
    assert client.stdout  # noqa: S101 - for the type checker
    handle, rest = client.stdout.fileno(), b""
    while True:
        if not select.select([handle], [], [], _LOOK_EVERY_S)[0]:
            yield {}
        elif block := os.read(handle, 65536):
            *lines, rest = (rest + block).split(b"\n")
            yield from map(json.loads, lines)
        else:
            return


def _pause(wait_s: float, advance: Advance) -> None:
    deadline = time.monotonic() + wait_s
    while (left := deadline - time.monotonic()) > 0:
        advance(0)
        time.sleep(min(_LOOK_EVERY_S, left))
