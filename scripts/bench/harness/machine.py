"""What a measurement was made with: the date, the machine, the versions."""

import os
import platform
import re
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

ASKED = {"openssl": ["version"], "docker": ["version", "--format", "{{.Server.Version}}"]}


def line(*programs: str, packages: tuple[str, ...] = ()) -> str:
    """One sentence. `packages` are Python's."""
    parts = [
        time.strftime("%Y-%m-%d", time.gmtime()),
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"dsv4-stack {version('dsv4-stack')}",
        *(f"{package} {version(package)}" for package in packages),
        *map(_program, programs),
    ]
    return "; ".join(parts) + "."


def _program(name: str) -> str:
    if not shutil.which(name):
        return f"no {name}"
    said = subprocess.run([name, *ASKED.get(name, ["--version"])], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(?:\.\d+)+", said)
    return f"{name} {found[0]}" if found else name


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
