"""What is known of an engine that does not start or does not move: gathered once, then read by the remedies."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from dsv4_stack.guest.serving import processes
from dsv4_stack.guest.serving.processes import Process

SHM: Final = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_COMPILERS: Final = ("nvcc", "cicc", "ptxas", "fatbinary", "cudafe++", "ninja", "cc1plus", "g++", "gcc", "clang")


class Phase(StrEnum):
    """Of a start, in its order. The last is no phase of a start."""

    IMPORTS = "imports"
    NCCL = "NCCL"
    WEIGHTS = "weights"
    KERNELS = "kernels"
    WARM_UP = "warm-up"
    SERVING = "serving"


# Frames of vLLM's own functions; the first that stands in a stack tells the phase. Source: vLLM 0.23.0 and 0.33.0,
# v1/worker/gpu_worker.py and model_executor/model_loader.
_FRAMES: Final = (
    (Phase.KERNELS, ("nvrtc", "_compile", "jit_", "build_and_load", "cpp_extension", "cute_dsl", "tilelang/")),
    (Phase.WEIGHTS, ("load_weights", "safetensors", "model_loader", "load_model")),
    (Phase.WARM_UP, ("capture_model", "compile_or_warm_up_model", "kernel_warmup", "profile_run", "_dummy_run")),
    (Phase.NCCL, ("init_distributed_environment", "init_process_group", "ncclCommInit", "pynccl", "symm_mem")),
    (Phase.NCCL, ("custom_all_reduce", "ensure_model_parallel_initialized", "_rendezvous", "rendezvous")),
)


@dataclass(frozen=True, kw_only=True)
class Space:
    """Bytes of a file system, and whether this process may write there."""

    size: int
    free: int
    is_writable: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """`stacks` are by process name, `topology` and `confidential` what nvidia-smi says of GPUs, "" without any."""

    is_up: bool
    processes: Sequence[Process]
    stacks: Mapping[str, str]
    shm: Space
    caches: Space
    has_nvcc: bool
    topology: str
    confidential: str
    arguments: Sequence[str]
    variables: Mapping[str, str]

    @property
    def phase(self) -> Phase:
        if self.is_up:
            return Phase.SERVING
        if any(process.name.split(" ")[0] in _COMPILERS for process in self.processes):
            return Phase.KERNELS
        text = "\n".join(self.stacks.values())
        return next((phase for phase, words in _FRAMES if any(word in text for word in words)), Phase.IMPORTS)


def gather(root: int, folder: Path, caches: Path, arguments: Sequence[str], *, is_up: bool) -> Evidence:
    """Look at everything. Takes some seconds, for the stacks; `folder` is where they are written."""
    found = processes.tree(root)
    names = {process.pid: f"{process.name} ({process.pid}, {process.state})" for process in found}
    return Evidence(
        is_up=is_up,
        processes=found,
        stacks={names[pid]: text for pid, text in processes.stacks(found, folder).items()},
        shm=space(SHM),
        caches=space(caches),
        has_nvcc=shutil.which("nvcc") is not None or Path("/usr/local/cuda/bin/nvcc").exists(),
        topology=_output("nvidia-smi", "topo", "-m"),
        confidential=_output("nvidia-smi", "conf-compute", "-f"),
        arguments=arguments,
        variables=dict(os.environ),
    )


def space(folder: Path) -> Space:
    try:
        found = os.statvfs(folder)
    except OSError:
        return Space(size=0, free=0, is_writable=False)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return Space(size=size, free=free, is_writable=os.access(folder, os.W_OK))


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
