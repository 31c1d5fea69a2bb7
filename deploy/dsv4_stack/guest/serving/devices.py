"""Power and memory of this container's GPUs, as nvidia-smi says it; none where it is not there.

https://docs.nvidia.com/deploy/nvidia-smi/ (--query-gpu)
"""

import subprocess
from dataclasses import dataclass
from typing import Final

TIMEOUT_S: Final = 10.0
_FIELDS: Final = ("index", "power.draw", "memory.used", "memory.total")


@dataclass(frozen=True, kw_only=True)
class Device:
    """Watts and MiB; None for what this GPU does not say ("[N/A]")."""

    index: int
    power_w: float | None
    used_mib: float | None
    total_mib: float | None


def look() -> list[Device]:
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return of_csv(done.stdout) if done.returncode == 0 else []


def of_csv(text: str) -> list[Device]:
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [_device(*row) for row in rows if len(row) == len(_FIELDS) and row[0].isdecimal()]


def _device(index: str, power: str, used: str, total: str) -> Device:
    return Device(index=int(index), power_w=_number(power), used_mib=_number(used), total_mib=_number(total))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
