"""What nvidia-smi says. Its text is not promised to stay as it is, so whatever reads it is tolerant.

https://manpages.ubuntu.com/manpages/plucky/man1/nvidia-smi.1.html
"""

import subprocess
from dataclasses import dataclass
from typing import Final

TIMEOUT_S = 30.0
_FIELDS: Final = ("name", "compute_cap", "memory.total", "driver_version")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`problem` says why there is no good answer, and is empty where there is one."""

    text: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`memory` in bytes, None where it is not known."""

    name: str
    capability: str
    memory: int | None
    driver: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Every GPU of this machine, in the order in which Docker reserves them."""

    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def ask(*words: str) -> Reply:
    """Run `nvidia-smi WORDS`; never raises."""
    command = ["nvidia-smi", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=TIMEOUT_S)
    except FileNotFoundError:
        return Reply(problem="there is no nvidia-smi")
    except subprocess.TimeoutExpired:
        return Reply(problem=f"nvidia-smi does not answer within {TIMEOUT_S:g} s")
    except OSError as error:
        return Reply(problem=f"nvidia-smi does not run: {error.strerror}")
    if done.returncode:
        # It says what is wrong on stdout: "NVIDIA-SMI has failed because it couldn't communicate with the driver."
        said = (done.stdout + done.stderr).strip().partition("\n")[0]
        return Reply(text=done.stdout, problem=f"nvidia-smi ended with exit code {done.returncode}: {said}")
    return Reply(text=done.stdout)


def listing() -> Listing:
    reply = ask(f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
    if reply.problem:
        return Listing(problem=reply.problem)
    rows = [[part.strip() for part in line.split(",")] for line in reply.text.splitlines()]
    return Listing(gpus=tuple(_gpu(*row) for row in rows if len(row) == len(_FIELDS)))


def _gpu(name: str, capability: str, mebibytes: str, driver: str) -> Gpu:
    memory = int(mebibytes) << 20 if mebibytes.isdecimal() else None
    return Gpu(name=name, capability=capability, memory=memory, driver=driver)
