"""Where the Hub is and what it may show us, as the environment says at the time of the call."""

import os
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, NetworkError

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
_TRUE: Final = {"1", "ON", "YES", "TRUE"}
_LET_READ: Final = "chmod 644 that file, in a folder that only you may enter; dsv4 up hands it over by itself"
_MEND: Final = "mend $HF_TOKEN or the file that $HF_TOKEN_FILE names"


def endpoint() -> str:
    """Where the Hub is: $HF_ENDPOINT, without a slash at its end. Raises ConfigError."""
    url = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"HF_ENDPOINT should begin with http:// or https://, not be {url!r}",
            f"set it to {DEFAULT_ENDPOINT}, or unset it",
        )
    return url


def is_offline() -> bool:
    """Whether $HF_HUB_OFFLINE or $TRANSFORMERS_OFFLINE forbids to ask, read as the Hub's client reads them."""
    return any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def refuse_offline(what: str, next_step: str) -> None:
    """Raise NetworkError where nobody may be asked for `what`."""
    if is_offline():
        raise NetworkError(f"{what}: HF_HUB_OFFLINE is set, so nobody is asked", next_step)


def bearer() -> dict[str, str]:
    """The header that shows the token, or none. Raises ConfigError."""
    value = token()
    return {"Authorization": f"Bearer {value}"} if value else {}


def token() -> str | None:
    """From $HF_TOKEN, or a file: the host's $HF_TOKEN_FILE, the containers' $HF_TOKEN_PATH; an empty one is none.

    Raises ConfigError.
    """
    value = os.environ.get("HF_TOKEN", "").strip() or _token_of_files()
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ConfigError(
            "the token of the Hub has characters that no token has",
            _MEND,
        )
    return value or None


def _token_of_files() -> str:
    if path := os.environ.get("HF_TOKEN_FILE"):
        return _token_of_file(Path(path))
    path = os.environ.get("HF_TOKEN_PATH", "")
    return _token_of_file(Path(path)) if os.path.lexists(path) else ""


def _token_of_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except PermissionError:
        raise ConfigError(f"the token file {path} cannot be read by user {os.getuid()}", _LET_READ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}", _MEND) from None
