"""What most likely helps an engine that does not start or does not move: one entry for each trouble of the field."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dsv4_stack.guest.serving.evidence import Evidence, Phase

_LEAST_SHM: Final = 1 << 30
_LEAST_CACHE: Final = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Remedy:
    trouble: str
    applies: Callable[[Evidence], bool]
    mend: str


def _names(evidence: Evidence, *words: str) -> bool:
    text = "\n".join(evidence.stacks.values())
    return any(word in text for word in words)


def _is_confidential(evidence: Evidence) -> bool:
    return "ON" in evidence.confidential


def _custom_all_reduce(evidence: Evidence) -> bool:
    is_allowed = "--disable-custom-all-reduce" not in evidence.arguments
    return is_allowed and (_names(evidence, "custom_all_reduce") or (_is_confidential(evidence) and _is_tp(evidence)))


def _symmetric_memory(evidence: Evidence) -> bool:
    is_allowed = evidence.variables.get("VLLM_ALLREDUCE_USE_SYMM_MEM") != "0"
    is_there = _names(evidence, "symm_mem", "SymmetricMemory")
    return is_allowed and (is_there or (_is_confidential(evidence) and _is_tp(evidence)))


def _is_tp(evidence: Evidence) -> bool:
    arguments = list(evidence.arguments)
    flag = "--tensor-parallel-size"
    return flag in arguments[:-1] and arguments[arguments.index(flag) + 1] != "1"


def _small_shm(evidence: Evidence) -> bool:
    is_small = evidence.shm.size < _LEAST_SHM and _is_tp(evidence)
    return is_small or (evidence.shm.size > 0 and evidence.shm.free < evidence.shm.size // 20)


def _no_nvcc(evidence: Evidence) -> bool:
    return bool(evidence.topology) and not evidence.has_nvcc


# Sources: https://github.com/vllm-project/vllm/issues/51513, 16514, 53320 and 57224.
REMEDIES: Final = (
    Remedy(
        trouble="custom all-reduce waits for memory of another process, which a confidential VM does not share",
        applies=_custom_all_reduce,
        mend="serve with --disable-custom-all-reduce, as the profile w4a8-tp2 does",
    ),
    Remedy(
        trouble="all-reduce over symmetric memory is CUDA IPC too, whatever --disable-custom-all-reduce says",
        applies=_symmetric_memory,
        mend="set VLLM_ALLREDUCE_USE_SYMM_MEM=0, as the profile w4a8-tp2 does",
    ),
    Remedy(
        trouble="shared memory (/dev/shm) is too small or full: ranks exchange requests and NCCL its buffers there",
        applies=_small_shm,
        mend="raise machine.shm_size in the profile; w4a8-tp2 has 16g",
    ),
    Remedy(
        trouble="there is no nvcc, and DeepGEMM compiles its kernels with it when they are first needed",
        applies=_no_nvcc,
        mend="use an engine whose base image has it, as vllm/vllm-openai does",
    ),
    Remedy(
        trouble="the kernel caches cannot be written to, so every start compiles everything",
        applies=lambda evidence: not evidence.caches.is_writable,
        mend="let the stack set up its volume: dsv4 down, then dsv4 up",
    ),
    Remedy(
        trouble="the volume of the kernel caches is full",
        applies=lambda evidence: evidence.caches.is_writable and evidence.caches.free < _LEAST_CACHE,
        mend="make room where Docker keeps its volumes, or: dsv4 down --caches, which deletes the caches",
    ),
    Remedy(
        trouble="a process of the engine was stopped by a signal (state T)",
        applies=lambda evidence: any(process.state == "T" for process in evidence.processes),
        mend="find who stopped it (a debugger, docker pause), and let it go on",
    ),
    Remedy(
        trouble="a process of the engine waits for a disk (state D)",
        applies=lambda evidence: any(process.state == "D" for process in evidence.processes),
        mend="look at the disk of the weights: dmesg, iostat -x 1",
    ),
    Remedy(
        trouble="the weights are still being read",
        applies=lambda evidence: evidence.phase == Phase.WEIGHTS,
        mend='with more than 200 GB of free memory: safetensors-load-strategy = "prefetch"; else a faster disk',
    ),
    Remedy(
        trouble="kernels are still being compiled, as at every start on empty caches",
        applies=lambda evidence: evidence.phase == Phase.KERNELS,
        mend="wait; the next start finds them, as long as the cache volume is kept",
    ),
)


def likely(evidence: Evidence) -> Sequence[Remedy]:
    """Those that apply, the likeliest first."""
    return [remedy for remedy in REMEDIES if remedy.applies(evidence)]
