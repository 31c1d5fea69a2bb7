"""Where the shipped files lie, in a wheel or in a checkout; every one is named here once."""

import os
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent
# A wheel carries docker/ and compose/ inside the package (pyproject's force-include); a checkout, and so an
# editable install, has them at its root.
IN_CHECKOUT: Final = not (PACKAGE / "_assets").is_dir()
ROOT: Final = PACKAGE.parents[1] if IN_CHECKOUT else PACKAGE / "_assets"

DOCKER: Final = ROOT / "docker"
COMPOSE: Final = ROOT / "compose"
PATCHES: Final = DOCKER / "serve" / "patches"
PINS: Final = PACKAGE / "pins.toml"
PROFILES: Final = PACKAGE / "profiles"
LOCK_NAME: Final = "dsv4.lock"


def pins_file() -> Path:
    """pins.toml, or the file that DSV4_PINS names."""
    return Path(os.environ.get("DSV4_PINS") or PINS)


def lock_file() -> Path:
    """dsv4.lock to write: the checkout's, or in the current folder for an installed dsv4; DSV4_LOCK names another."""
    return Path(os.environ.get("DSV4_LOCK") or ((ROOT if IN_CHECKOUT else Path.cwd()) / LOCK_NAME))


def known_lock() -> Path:
    """dsv4.lock to read: the one to write, or where none was written yet, the one that the files were rendered with."""
    file = lock_file()
    return file if file.exists() or os.environ.get("DSV4_LOCK") else ROOT / LOCK_NAME
