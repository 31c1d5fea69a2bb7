"""What of a profile's settings confidential computing forbids."""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from dsv4_stack import profile as profiles
from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.doctor.protection import State
from dsv4_stack.errors import ConfigError
from dsv4_stack.plan import Plan
from dsv4_stack.profile import Profile
from dsv4_stack.releases import Hazard

SUBJECT: Final = "profile under confidential computing"
# The variables by which pins.toml's hazards of confidential computing are avoided.
_VARIABLES: Final = {
    "VLLM_ALLREDUCE_USE_SYMM_MEM",
    "VLLM_ALLREDUCE_USE_FLASHINFER",
    "VLLM_USE_V2_MODEL_RUNNER",
}
# cudaHostRegister is refused, so whatever offloads to the CPU ends in a crash:
# https://github.com/vllm-project/vllm/issues/55428
_OFFLOAD: Final = ("kv-offloading-size", "cpu-offload-gb")
_CONNECTOR: Final = "kv-transfer-config"
_NOTHING: Final = {"", "0", "0.0", "False", "{}"}


def findings(plan: Plan, state: State) -> Iterator[Finding]:
    if not state.confidential:
        return
    problems = forbidden(plan.profile, plan.hazards)
    if problems:
        yield wrong(SUBJECT, "; ".join(problems), _mend(plan), ConfigError)
    else:
        yield ok(SUBJECT, f"{plan.profile.name} turns off what is known to fail there")


def forbidden(profile: Profile, hazards: Iterable[Hazard]) -> list[str]:
    """Every setting that would hang, crash or answer with garbage."""
    return [*_all_reduce(profile), *_hazards(profile, hazards), *_offload(profile)]


def _all_reduce(profile: Profile) -> Iterator[str]:
    # "CUDA IPC is not supported in PPCIe mode": https://forums.developer.nvidia.com/t/339980
    if profile.machine.gpus > 1 and not profile.serve.flags.get("disable-custom-all-reduce"):
        yield "disable-custom-all-reduce is false, and custom all-reduce needs CUDA IPC"


def _hazards(profile: Profile, hazards: Iterable[Hazard]) -> Iterator[str]:
    for hazard in hazards:
        unset = [f"{name} is not {value}" for name, value in hazard.env.items() if profile.serve.env.get(name) != value]
        if unset and hazard.env.keys() & _VARIABLES:
            yield f"{', '.join(unset)}: {hazard.what}"


def _offload(profile: Profile) -> Iterator[str]:
    flags = profile.serve.flags
    named = [flag for flag in _OFFLOAD if str(flags.get(flag, 0)) not in _NOTHING]
    if "offload" in json.dumps(flags.get(_CONNECTOR, "")).lower():
        named.append(_CONNECTOR)
    yield from (f"{flag} offloads to the CPU, and cudaHostRegister is refused" for flag in named)


def _mend(plan: Plan) -> str:
    """A shipped profile for the same machine and checkpoint that allows none of it."""
    same = (plan.checkpoint.name, plan.profile.machine.gpus)
    for name, other in profiles.shipped().items():
        if (other.checkpoint, other.machine.gpus) == same and not forbidden(other, plan.hazards):
            chosen = "" if other.engine == plan.engine.name else f" --engine {plan.engine.name}"
            return f"dsv4 up --profile {name}{chosen}"
    return f"mend {plan.profile.files[-1]}, or choose another of: dsv4 profiles"
