"""Whether NVIDIA supports this many GPUs in one confidential VM, and whether they take work."""

from collections.abc import Iterator
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.doctor.protection import State
from dsv4_stack.plan import Plan

SUBJECT: Final = "confidential computing"
# One Hopper GPU in CC mode, or eight with four NVSwitches in PPCIe mode; of several in another mode the notes of R550
# say "undefined behavior". https://docs.nvidia.com/580trd1-trusted-computing-solutions-release-notes.pdf
# https://docs.nvidia.com/confidential-computing/release-notes/r550-trd3
# https://docs.nvidia.com/attestation/attestation-client-tools-ppcie-sdk-cpp/latest/ppcie_introduction.html
ALL: Final = 8
_SHAPES: Final = (
    "NVIDIA supports on Hopper one GPU per VM in CC mode, or all eight with the NVSwitches in PPCIe mode: ask for a VM "
    "of eight, of which the profile uses {gpus}"
)
# Until then programs that use CUDA fail: https://github.com/NVIDIA/nvtrust/issues/56
_SET_READY: Final = "sudo nvidia-smi conf-compute -srs 1"


def findings(plan: Plan, state: State, total: int) -> Iterator[Finding]:
    """`total` is the number of GPUs in this machine."""
    gpus = plan.profile.machine.gpus
    if not state.confidential:
        yield ok(SUBJECT, f"{state.guest}, and CC mode of the GPUs is {_mode(state)}")
    elif _is_supported(state, total):
        yield ok(SUBJECT, f"{_described(state, total)}, of which the profile uses {min(gpus, total)}")
    else:
        # Not seen by us on two H200s inside TDX, so it is not refused either.
        yield warning(SUBJECT, f"{_described(state, total)}, not a supported shape", _SHAPES.format(gpus=gpus))
    if not state.ready:
        yield wrong("GPU ready state", "not ready, so the GPUs take no work", _SET_READY)


def _is_supported(state: State, total: int) -> bool:
    return total == ALL if state.ppcie else bool(state.cc) and total == 1


def _described(state: State, total: int) -> str:
    number = f"{total} GPU" if total == 1 else f"{total} GPUs"
    mode = "in PPCIe mode" if state.ppcie else f"with CC mode {_mode(state)}"
    return f"{state.guest}, {number} {mode}"


def _mode(state: State) -> str:
    return {True: "on", False: "off", None: "not known"}[state.cc]
