"""Deep: every byte is hashed again, against what `openssl speed` hashes on as many cores."""

import os
import re
import subprocess
from dataclasses import dataclass, replace
from statistics import median

from harness.contenders import DSV4, Job
from harness.processes import Process
from harness.rounds import Rounds

_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Deep:
    """`bytes_per_s` leaves out what the same run takes without --deep; `whole_bytes_per_s` does not."""

    bytes_per_s: float
    whole_bytes_per_s: float
    openssl_bytes_per_s: float | None

    @property
    def share(self) -> float | None:
        return self.bytes_per_s / self.openssl_bytes_per_s if self.openssl_bytes_per_s else None


def measure(job: Job, size: int, rounds: Rounds, *, seconds: int) -> Deep:
    """Of a folder that is complete, `size` bytes. Raises ValueError where it does not pass."""
    deep_s, warm_s, openssl = [], [], []
    for counts in rounds:
        found = _seconds(replace(job, flags=(*job.flags, "--deep"))), _seconds(job), _openssl(seconds)
        if counts:
            deep_s.append(found[0])
            warm_s.append(found[1])
            openssl += [found[2]] if found[2] else []
    whole_s = median(deep_s)
    return Deep(
        bytes_per_s=size / max(whole_s - median(warm_s), 1e-6),
        whole_bytes_per_s=size / whole_s,
        openssl_bytes_per_s=median(openssl) if openssl else None,
    )


def _seconds(job: Job) -> float:
    with Process(DSV4.command(job), job.home / "log") as process:
        ended = process.end(_LIMIT_S)
    if ended.exit_code != 0:
        raise ValueError(f"materialize {' '.join(job.flags)} ended with {ended.exit_code}:\n{ended.output[-2000:]}")
    return ended.wall_s


def _openssl(seconds: int) -> float | None:
    """sha256 in bytes a second, one process for each core; None where there is no openssl."""
    cores = str(os.cpu_count())
    flags = ("-mr", "-evp", "sha256", "-bytes", str(1 << 20), "-multi", cores, "-seconds", str(seconds))
    try:
        said = subprocess.run(["openssl", "speed", *flags], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    found = re.findall(r"^\+F:\d+:sha256:([\d.]+)$", said, re.MULTILINE)
    return float(found[-1]) if found else None
