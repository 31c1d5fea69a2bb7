"""The Hugging Face token, which public repositories do without."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.errors import ConfigError
from dsv4_stack.guest import access
from dsv4_stack.lock import repos_of
from dsv4_stack.plan import Plan

SUBJECT: Final = "Hugging Face token"
_MEND: Final = "mend the file that $HF_TOKEN_FILE names, or unset it: the repositories are public"


def findings(plan: Plan) -> Iterator[Finding]:
    """Nothing for the demo, whose own Hub wants none."""
    if not repos_of(plan.checkpoint):
        return
    name = os.environ.get("HF_TOKEN_FILE")
    yield _of_file(Path(name).expanduser()) if name else _of_environment()


def _of_file(path: Path) -> Finding:
    """The containers get the file, whatever $HF_TOKEN says."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return wrong(SUBJECT, f"{path} cannot be read: {getattr(error, 'strerror', error)}", _MEND, ConfigError)
    if not text:
        return wrong(SUBJECT, f"{path} is empty", _MEND, ConfigError)
    if not (text.isascii() and text.isprintable()) or " " in text:
        return wrong(SUBJECT, f"{path} has characters that no token has", _MEND, ConfigError)
    return ok(SUBJECT, f"from {path}")


def _of_environment() -> Finding:
    try:
        token = access.token()
    except ConfigError as error:
        return wrong(SUBJECT, error.message, error.next_step, ConfigError)
    return ok(SUBJECT, "from $HF_TOKEN" if token else "none, and none is needed: the repositories are public")
