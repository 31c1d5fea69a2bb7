"""The GPUs: enough of them, of the kind that the kernels are for, each with room for its share of the weights."""

from collections.abc import Iterator
from typing import Final

from dsv4_stack.doctor import weights
from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.doctor.smi import Gpu, Listing
from dsv4_stack.doctor.weights import GIB
from dsv4_stack.plan import Plan

# vLLM's default: https://github.com/vllm-project/vllm/blob/v0.23.0/vllm/config/cache.py
_UTILIZATION: Final = 0.92


def findings(plan: Plan, listing: Listing) -> Iterator[Finding]:
    wanted = plan.profile.machine.gpus
    yield _number(wanted, listing)
    for index, gpu in enumerate(listing.gpus[:wanted]):
        yield _one(plan, f"GPU {index}", gpu)


def _number(wanted: int, listing: Listing) -> Finding:
    gpus = listing.gpus
    found = f"{len(gpus)} of {wanted}" + (f" ({gpus[0].name})" if gpus else ", nvidia-smi lists none")
    if len(gpus) >= wanted:
        return ok("GPUs", found)
    return wrong("GPUs", found, f"run on a machine with {wanted} GPUs, or choose another of: dsv4 profiles")


def _one(plan: Plan, subject: str, gpu: Gpu) -> Finding:
    memory = "memory not known" if gpu.memory is None else f"{gpu.memory / GIB:.1f} GiB"
    found = f"{gpu.name}, compute capability {gpu.capability}, {memory}"
    problems = [*_capability(plan, gpu), *_memory(plan, gpu)]
    if problems:
        return wrong(subject, found, "; ".join(problems))
    if gpu.memory is None:
        return warning(subject, found, f"see that there are more than {_share(plan) / GIB:.1f} GiB for weights")
    return ok(subject, found)


def _capability(plan: Plan, gpu: Gpu) -> Iterator[str]:
    wanted = plan.profile.machine.compute_capability
    if gpu.capability != wanted:
        yield f"this checkpoint's kernels need exactly {wanted} (H100, H200)"


def _memory(plan: Plan, gpu: Gpu) -> Iterator[str]:
    part = _utilization(plan)
    if gpu.memory is not None and gpu.memory * part <= _share(plan):
        yield (
            f"vLLM may take {gpu.memory * part / GIB:.1f} GiB of it (gpu-memory-utilization), and needs more than "
            f"{_share(plan) / GIB:.1f} for weights and KV cache: choose a profile of more GPUs: dsv4 profiles"
        )


def _utilization(plan: Plan) -> float:
    """The part of a GPU's memory that vLLM may take."""
    value = plan.profile.serve.flags.get("gpu-memory-utilization")
    return float(value) if value and isinstance(value, int | float) else _UTILIZATION


def _share(plan: Plan) -> float:
    """Bytes for one rank, with some room for its KV cache.

    Of 158.19 / 2 GiB a rank of two was seen to hold 73.25, without the MTP draft:
    https://github.com/canada-quant/dsv4-flash-w4a16-fp8-mtp
    """
    return weights.loaded_bytes(plan) / plan.profile.machine.gpus
