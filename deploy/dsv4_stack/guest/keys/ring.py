"""A file of API keys: a name and the sha256 of the key on each line, so that whoever reads it has no key.

The keys are random and long, so a plain hash is as good as a slow one: there is no guessing them.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, NotFoundError, UsageError

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
    """A new key, which is told once and kept nowhere. Raises UsageError, ConfigError."""
    ring = dict(load(path))
    if not re.fullmatch(_NAME, name):
        raise UsageError(f"{name!r} is no name for a key", "take letters, digits and . @ _ -, 64 at most")
    if name in ring:
        raise UsageError(f"there is a key {name!r} already", f"run: dsv4 keys revoke {name}")
    key = f"sk-dsv4-{secrets.token_urlsafe(32)}"
    _write(path, ring | {name: hashed(key)})
    return key


def revoke(path: Path, name: str) -> None:
    """Raises NotFoundError, ConfigError."""
    ring = dict(load(path))
    if name not in ring:
        raise NotFoundError(f"there is no key {name!r} in {path}", "run: dsv4 keys list")
    del ring[name]
    _write(path, ring)


def _write(path: Path, ring: Ring) -> None:
    """At once, so that a reader sees the old keys or the new ones. It holds no secret, and the containers read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(_HEADER + "".join(f"{name} {sha256}\n" for name, sha256 in ring.items()), encoding="utf-8")
    beside.chmod(0o644)
    beside.replace(path)
