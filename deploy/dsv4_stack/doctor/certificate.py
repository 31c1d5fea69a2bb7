"""The edge's certificate: whether it can be had, and one's own be read by who has to."""

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.errors import ConfigError
from dsv4_stack.plan import EDGE, UID

SUBJECT: Final = "edge's certificate"
_INSIDE: Final = PurePosixPath("/certs")
_MEND: Final = "set DSV4_EDGE_TLS to internal, to an e-mail address, or to: /certs/cert.pem /certs/key.pem"

Settings = Mapping[str, str]


def findings(overrides: dict[str, str], overlays: tuple[str, ...] = ()) -> Iterator[Finding]:
    if EDGE in overlays:
        yield _of({**os.environ, **overrides})


def _of(settings: Settings) -> Finding:
    words = (settings.get("DSV4_EDGE_TLS") or "internal").split()
    host = settings.get("DSV4_EDGE_HOST") or "localhost"
    if words == ["internal"]:
        return ok(SUBJECT, f"for {host}, of its own authority")
    if len(words) == 1 and "@" in words[0]:
        return ok(SUBJECT, f"for {host}, of Let's Encrypt")
    if len(words) == 2:
        return _own(words, settings)
    return wrong(SUBJECT, f"DSV4_EDGE_TLS is {' '.join(words)!r}", _MEND, ConfigError)


def _own(words: list[str], settings: Settings) -> Finding:
    try:
        certificate, key = _files(words, settings)
        _look_at(certificate, key, settings)
    except PermissionError as error:
        return warning(SUBJECT, f"{error.filename or key} is closed to this user, so it was not looked at")
    except ConfigError as error:
        return wrong(SUBJECT, error.message, error.next_step, ConfigError)
    return ok(SUBJECT, f"{certificate}, with its key")


def _files(words: list[str], settings: Settings) -> list[Path]:
    """The files of this machine that the container knows by these names. Raises ConfigError."""
    folder = settings.get("DSV4_EDGE_CERTS")
    if not folder:
        raise ConfigError("DSV4_EDGE_CERTS is not set", f"set it to the folder that is to be {_INSIDE}")
    paths = [PurePosixPath(word) for word in words]
    if not all(path.is_relative_to(_INSIDE) and ".." not in path.parts for path in paths):
        raise ConfigError(f"the edge has {folder} as {_INSIDE}, and no {' or '.join(words)}", _MEND)
    return [Path(folder).expanduser() / path.relative_to(_INSIDE) for path in paths]


def _look_at(certificate: Path, key: Path, settings: Settings) -> None:
    """Raises ConfigError, and PermissionError where this user may not look."""
    try:
        # Docker mounts the folder, so what lies above it does not matter.
        folders = dict.fromkeys(file.parent for file in (certificate, key))
        closed = [folder for folder in folders if not _lets(folder, 0o1, settings)]
        closed += [file for file in (certificate, key) if not _lets(file, 0o4, settings)]
        if closed:
            raise ConfigError(
                f"the edge runs as user {_user(settings)}, which may not read {' and '.join(map(str, closed))}",
                f"run: chown {_user(settings)} {' '.join(map(str, closed))}",
            )
        # Asked for a passphrase, it would wait for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise ConfigError(
            f"{certificate} and {key} are no certificate and its key: {error.reason or error}",
            "put both there in PEM, the key without a passphrase",
        ) from None
    except PermissionError:
        raise
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}", f"put it there, or {_MEND}") from None


def _lets(path: Path, bit: int, settings: Settings) -> bool:
    """Whether the containers' user may, which `bit` says as it stands in the mode for others."""
    found = path.stat()
    group = settings.get("DSV4_GID") or str(UID)
    shift = 6 if str(found.st_uid) == _user(settings) else 3 if str(found.st_gid) == group else 0
    return bool(found.st_mode & bit << shift)


def _user(settings: Settings) -> str:
    return settings.get("DSV4_UID") or str(UID)
