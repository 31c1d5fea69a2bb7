"""The host's memory: for /dev/shm, and for the page cache that a prefetched checkpoint fills."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.doctor import weights
from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.doctor.weights import GIB
from dsv4_stack.plan import Plan

MEMINFO = Path("/proc/meminfo")
_STRATEGY: Final = "safetensors-load-strategy"
_UNITS: Final = {"m": 1 << 20, "g": GIB}
# Past this share of the memory that is free vLLM warns of being killed:
# https://github.com/vllm-project/vllm/blob/v0.23.0/vllm/model_executor/model_loader/weight_utils.py
_PREFETCH: Final = 0.90


@dataclass(frozen=True, kw_only=True)
class Memory:
    """In bytes. `available` counts page cache that can be given up."""

    total: int
    available: int


def findings(plan: Plan) -> Iterator[Finding]:
    memory = _read()
    if memory is None:
        yield warning("memory", f"not known: {MEMINFO} says nothing")
        return
    if plan.profile.machine.gpus:
        yield _page_cache(plan, memory)
    yield _shm(plan, memory)


def _read() -> Memory | None:
    try:
        text = MEMINFO.read_text(encoding="utf-8")
    except OSError:
        return None
    found = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    if not {"MemTotal", "MemAvailable"} <= found.keys():
        return None
    return Memory(total=found["MemTotal"], available=found["MemAvailable"])


def _page_cache(plan: Plan, memory: Memory) -> Finding:
    strategy = plan.profile.serve.flags.get(_STRATEGY)
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    if strategy != "prefetch":
        return ok("memory", f"{found}; weights are not prefetched, so little is needed")
    size = weights.loaded_bytes(plan)
    found = f"{found}; {_STRATEGY} = prefetch holds {size / GIB:.1f} GiB of weights in it"
    if memory.available * _PREFETCH >= size:
        return ok("memory", found)
    mend = f'set {_STRATEGY} = "lazy" in a profile of your own, or have {size / _PREFETCH / GIB:.1f} GiB available'
    return warning("memory", found, mend) if memory.available >= size else wrong("memory", found, mend)


def _shm(plan: Plan, memory: Memory) -> Finding:
    """It takes memory as it fills, so it is a limit that should be within reach."""
    text = plan.profile.machine.shm_size
    size = int(text[:-1]) * _UNITS[text[-1]]
    found = f"{text} of {memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} available"
    mend = "run on a machine with more memory, or set machine.shm_size in a profile of your own"
    if size > memory.total:
        return wrong("shm", found, mend)
    return ok("shm", found) if size <= memory.available else warning("shm", found, mend)
