"""Commands as users run them, in the checkout, with a time limit."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DSV4: Final = Path(sys.executable).parent / "dsv4"
# As scripts/setup installed it.
UV: Final = ROOT / ".cache/tools/bin/uv"


def run(
    *command: str | Path, timeout: float, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """The finished process, whatever its exit code; output is captured."""
    words = [str(word) for word in command]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout, env=environment, cwd=cwd)


def succeed(
    *command: str | Path, timeout: float, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """As `run`, and its exit code is 0; a failure shows everything that it said."""
    done = run(*command, timeout=timeout, env=env, cwd=cwd)
    assert done.returncode == 0, f"{command} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def dsv4(
    *words: str | Path, timeout: float = 60, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run(DSV4, *words, timeout=timeout, env=env)
