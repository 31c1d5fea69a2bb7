"""A file of API keys: a name and the sha256 of the key on each line, so that whoever reads it has no key.

The keys are random and long, so a plain hash is as good as a slow one: there is no guessing them.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, NotFoundError, UsageError
from dsv4_stack.guest.files import make_folder, write_atomically, writing

NAME: Final = "api_keys"
_NAME: Final = r"[A-Za-z0-9._@-]{1,64}"
_LINE: Final = re.compile(rf"({_NAME})\s+([0-9a-f]{{64}})")
_HEADER: Final = "# One API key a line: its name, and the sha256 of the key. Written by: dsv4 keys add NAME\n"

Ring = Mapping[str, str]
"""Hashes by name."""


def parse(text: str, where: str) -> Ring:
    """Raises ConfigError with every line that is none."""
    ring: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        match = _LINE.fullmatch(entry)
        if match and match[1] not in ring:
            ring[match[1]] = match[2]
        elif entry:
            problems.append(f"  line {number}: {'the name is there already' if match else 'no name and sha256'}")
    if problems:
        raise ConfigError(f"{where} is no list of API keys:\n" + "\n".join(problems), "run: dsv4 keys add NAME")
    return ring


def load(path: Path) -> Ring:
    """No file is no key. Raises ConfigError."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "let the containers' user read it") from None


def owner(ring: Ring, key: str) -> str:
    """Whose key it is, or nobody's. All are compared, each in the same time, so that the time tells nothing."""
    given = hashed(key)
    found = ""
    for name, known in ring.items():
        if hmac.compare_digest(given, known):
            found = name
    return found


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def add(path: Path, name: str) -> str:
    """A new key, which is told once and kept nowhere. Raises UsageError, ConfigError, and as `writing` does."""
    if not re.fullmatch(_NAME, name):
        raise UsageError(f"{name!r} is no name for a key", "take letters, digits and . @ _ -, 64 at most")
    key = f"sk-dsv4-{secrets.token_urlsafe(32)}"
    _make_folder(path.parent)
    with _changing(path) as ring:
        if name in ring:
            raise UsageError(f"there is a key {name!r} already", f"run: dsv4 keys revoke {name}")
        ring[name] = hashed(key)
    return key


def revoke(path: Path, name: str) -> None:
    """Raises NotFoundError, ConfigError, and as `writing` does."""
    if name not in load(path):
        raise NotFoundError(f"there is no key {name!r} in {path}", "run: dsv4 keys list")
    with _changing(path) as ring:
        # Somebody else may have taken it back by now, which is as well.
        ring.pop(name, None)


def _make_folder(folder: Path) -> None:
    """For the containers' user to enter, whatever the umask. One that is there is left as it is."""
    with writing(folder):
        if not folder.is_dir():
            make_folder(folder)
            folder.chmod(0o755)


@contextmanager
def _changing(path: Path) -> Iterator[dict[str, str]]:
    """The ring as it is now, and then as it was left. It holds no secret, and the containers read it."""
    with _locked(path.parent):
        ring = dict(load(path))
        yield ring
        lines = "".join(f"{name} {sha256}\n" for name, sha256 in ring.items())
        write_atomically(path, (_HEADER + lines).encode(), mode=0o644)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One change at a time, from reading to writing, or two at once would lose one. Raises as `writing` does."""
    with writing(folder):
        # Of the folder, because a file that is replaced takes its lock with it.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with writing(folder):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
