"""Confidential computing as this machine sees it: the kind of VM, and the mode of its GPUs."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from dsv4_stack.doctor import smi

# The kernel sets the flag in a TDX guest: https://git.kernel.org/torvalds/c/59bd54a84d15
CPUINFO = Path("/proc/cpuinfo")
TDX_DEVICE = Path("/dev/tdx_guest")  # https://docs.kernel.org/virt/coco/tdx-guest.html
SEV_DEVICE = Path("/dev/sev-guest")  # https://docs.kernel.org/virt/coco/sev-guest.html
_TDX_FLAG: Final = re.compile(r"^flags\s*:.*\btdx_guest\b", re.MULTILINE)
# "CC status: ON", as quoted in https://github.com/vllm-project/vllm/pull/50671
_CC: Final = re.compile(r"CC (?:status|state|feature)\s*:\s*(ON|OFF)", re.IGNORECASE)
# What `-mgm` prints we have not seen. In PPCIe mode `conf-compute -q` prints "Multi-GPU Mode : Protected PCIe" and, as
# that is another mode, "CC State : OFF": https://github.com/chutesai/sek8s/blob/main/docs/benchmark-guide.md
_PPCIE: Final = re.compile(r"protected\s*pcie|\bppcie\b", re.IGNORECASE)
_NO_PPCIE: Final = re.compile(r"\b(?:off|none|disabled|not)\b", re.IGNORECASE)
# "Confidential Compute GPUs Ready state: not-ready": https://github.com/NVIDIA/nvtrust/issues/37
_NOT_READY: Final = re.compile(r"ready.state\s*:\s*not", re.IGNORECASE)


class Guest(StrEnum):
    TDX = "an Intel TDX guest"
    SEV_SNP = "an AMD SEV-SNP guest"
    NONE = "no TDX or SEV-SNP guest"


@dataclass(frozen=True, kw_only=True)
class State:
    """`cc` is None where nvidia-smi does not say. In PPCIe mode (`ppcie`) GPUs are protected, and their CC is off."""

    guest: Guest
    cc: bool | None
    ppcie: bool
    ready: bool = True

    @property
    def confidential(self) -> bool:
        """Whether what confidential computing forbids is forbidden here."""
        return self.guest is not Guest.NONE or bool(self.cc) or self.ppcie


def state(*, answers: bool = True) -> State:
    """`answers`: nvidia-smi does. A driver that hangs is not waited for again and again."""
    if not answers:
        return State(guest=_guest(), cc=None, ppcie=False)
    cc, ppcie = _cc(smi.ask("conf-compute", "-f").text), _is_ppcie(smi.ask("conf-compute", "-mgm").text)
    ready = not (cc or ppcie) or not _NOT_READY.search(smi.ask("conf-compute", "-grs").text)
    return State(guest=_guest(), cc=cc, ppcie=ppcie, ready=ready)


def _guest() -> Guest:
    if TDX_DEVICE.exists() or _TDX_FLAG.search(_cpuinfo()):
        return Guest.TDX
    return Guest.SEV_SNP if SEV_DEVICE.exists() else Guest.NONE


def _cpuinfo() -> str:
    try:
        return CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cc(text: str) -> bool | None:
    found = _CC.search(text)
    return found[1].upper() == "ON" if found else None


def _is_ppcie(text: str) -> bool:
    return any(_PPCIE.search(line) and not _NO_PPCIE.search(line) for line in text.splitlines())
