"""Confidential computing: what is detected, which shapes are supported, and which settings are forbidden."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dsv4_stack import assets, lock, pins, profile
from dsv4_stack.doctor import confidential, protection, restrictions, smi
from dsv4_stack.doctor.finding import Finding
from dsv4_stack.doctor.protection import Guest, State
from dsv4_stack.doctor.smi import Reply
from dsv4_stack.errors import ConfigError
from dsv4_stack.plan import Plan, make_plan
from dsv4_stack.profile import Setting

SHAPES = (
    "      NVIDIA supports on Hopper one GPU per VM in CC mode, or all eight with the NVSwitches in PPCIe mode: "
    "ask for a VM of eight, of which the profile uses 2"
)
TDX = State(guest=Guest.TDX, cc=False, ppcie=True)


def plan_of(name: str, engine: str = "") -> Plan:
    return make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock(), engine=engine)


def with_settings(plan: Plan, *, flags: dict[str, Setting] | None = None, env: dict[str, str] | None = None) -> Plan:
    serve = plan.profile.serve
    changed = replace(serve, flags={**serve.flags, **(flags or {})}, env={**serve.env, **(env or {})})
    return replace(plan, profile=replace(plan.profile, serve=changed))


def lines(findings: Iterable[Finding]) -> list[str]:
    return [line for finding in findings for line in str(finding).splitlines()]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel shows, in a folder: nothing so far."""
    for name in ("CPUINFO", "TDX_DEVICE", "SEV_DEVICE"):
        monkeypatch.setattr(protection, name, tmp_path / name)
    return tmp_path


def gpus_say(monkeypatch: pytest.MonkeyPatch, **texts: str) -> list[str]:
    """Answers by option (f, mgm, grs), a failure to every other; returns what was asked."""
    asked: list[str] = []

    def ask(*words: str) -> Reply:
        asked.append(" ".join(words))
        text = texts.get(words[-1].lstrip("-"))
        return Reply(text=text) if text is not None else Reply(problem="nvidia-smi ended with exit code 2: unknown")

    monkeypatch.setattr(smi, "ask", ask)
    return asked


def test_no_confidential_vm(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel / "CPUINFO").write_text("model name\t: tdx_guest\nflags\t\t: fpu sse2\n")
    asked = gpus_say(monkeypatch, f="CC status: OFF\n", mgm="Multi-GPU Mode: None\n")
    assert protection.state() == State(guest=Guest.NONE, cc=False, ppcie=False)
    assert asked == ["conf-compute -f", "conf-compute -mgm"]


@pytest.mark.parametrize("shown", ["CPUINFO", "TDX_DEVICE"])
def test_a_tdx_guest_by_its_flag_or_its_device(kernel: Path, monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    (kernel / shown).write_text("processor\t: 0\nflags\t\t: fpu tdx_guest sse2\n")
    gpus_say(monkeypatch)
    assert protection.state() == State(guest=Guest.TDX, cc=None, ppcie=False)


def test_a_sev_snp_guest_with_one_gpu_that_is_not_ready(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel / "SEV_DEVICE").touch()
    ready = "Confidential Compute GPUs Ready state: not-ready\n"
    asked = gpus_say(monkeypatch, f="CC status: ON\n", mgm="", grs=ready)
    assert protection.state() == State(guest=Guest.SEV_SNP, cc=True, ppcie=False, ready=False)
    assert asked == ["conf-compute -f", "conf-compute -mgm", "conf-compute -grs"]


@pytest.mark.parametrize(
    ("text", "ppcie"),
    [
        ("Multi-GPU Mode             : Protected PCIe", True),
        ("multi-gpu mode: PPCIE", True),
        ("CC State : OFF\nMulti-GPU Mode : Protected PCIe\n", True),
        ("PPCIe: OFF", False),
        ("Protected PCIe: not enabled", False),
        ("Multi-GPU Mode: NVLE", False),
        ("", False),
    ],
)
def test_the_multi_gpu_mode_is_read_tolerantly(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, text: str, *, ppcie: bool
) -> None:
    assert kernel.is_dir()
    gpus_say(monkeypatch, f="CC status: OFF", mgm=text, grs="Confidential Compute GPUs Ready state: ready")
    assert protection.state() == State(guest=Guest.NONE, cc=False, ppcie=ppcie)


def test_a_driver_that_does_not_answer_is_not_asked(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel / "TDX_DEVICE").touch()
    asked = gpus_say(monkeypatch, f="CC status: ON")
    assert (protection.state(answers=False), asked) == (State(guest=Guest.TDX, cc=None, ppcie=False), [])


@pytest.mark.parametrize(
    ("state", "total", "line"),
    [
        (
            State(guest=Guest.NONE, cc=None, ppcie=False),
            2,
            "ok    confidential computing: no TDX or SEV-SNP guest, and CC mode of the GPUs is not known",
        ),
        (
            TDX,
            8,
            "ok    confidential computing: an Intel TDX guest, 8 GPUs in PPCIe mode, of which the profile uses 2",
        ),
        (
            State(guest=Guest.SEV_SNP, cc=True, ppcie=False),
            1,
            "ok    confidential computing: an AMD SEV-SNP guest, 1 GPU with CC mode on, of which the profile uses 1",
        ),
        (
            TDX,
            4,
            "WARN  confidential computing: an Intel TDX guest, 4 GPUs in PPCIe mode, not a supported shape",
        ),
        (
            State(guest=Guest.NONE, cc=True, ppcie=False),
            2,
            "WARN  confidential computing: no TDX or SEV-SNP guest, 2 GPUs with CC mode on, not a supported shape",
        ),
        (
            State(guest=Guest.TDX, cc=None, ppcie=False),
            2,
            "WARN  confidential computing: an Intel TDX guest, 2 GPUs with CC mode not known, not a supported shape",
        ),
    ],
)
def test_the_shapes_that_nvidia_supports(state: State, total: int, line: str) -> None:
    found = lines(confidential.findings(plan_of("w4a8-tp2"), state, total))
    assert found == [line, *([] if line.startswith("ok") else [SHAPES])]


def test_gpus_that_are_not_ready_take_no_work() -> None:
    found = lines(confidential.findings(plan_of("w4a8-tp2"), replace(TDX, ready=False), 8))
    assert found[1:] == [
        "WRONG GPU ready state: not ready, so the GPUs take no work",
        "      sudo nvidia-smi conf-compute -srs 1",
    ]


@pytest.mark.parametrize("name", ["w4a8-tp2", "w4a16-tp2", "w4a8-tp4"])
@pytest.mark.parametrize("engine", ["nightly", "v0.23.0", "v0.26.0", "v0.28.0", "v0.30.0", "v0.33.0"])
def test_the_profiles_for_confidential_vms_allow_nothing_forbidden(name: str, engine: str) -> None:
    assert lines(restrictions.findings(plan_of(name, engine), TDX)) == [
        f"ok    profile under confidential computing: {name} turns off what is known to fail there"
    ]


def test_outside_of_confidential_computing_everything_is_allowed() -> None:
    bare = State(guest=Guest.NONE, cc=False, ppcie=False)
    assert list(restrictions.findings(plan_of("w4a8-tp2-baremetal", "v0.33.0"), bare)) == []


def test_bare_metal_with_model_runner_v2_is_wrong_in_four_ways() -> None:
    (found,) = restrictions.findings(plan_of("w4a8-tp2-baremetal", "v0.33.0"), TDX)
    assert found.found.split("; ") == [
        "disable-custom-all-reduce is false, and custom all-reduce needs CUDA IPC",
        (
            "VLLM_ALLREDUCE_USE_SYMM_MEM is not 0: all-reduce over symmetric memory, on by default, is CUDA IPC, "
            "which a confidential VM does not allow"
        ),
        (
            "VLLM_USE_V2_MODEL_RUNNER is not 0: model runner V2, this model's default, answers 200 with garbage under "
            "confidential computing"
        ),
        (
            "VLLM_ALLREDUCE_USE_FLASHINFER is not 0: FlashInfer's all-reduce, on by default, is CUDA IPC, which a "
            "confidential VM does not allow"
        ),
    ]
    assert (found.ok, found.mend, found.error) == (
        False,
        "dsv4 up --profile w4a8-tp2 --engine v0.33.0",
        ConfigError,
    )


def test_offloading_to_the_cpu_is_wrong_with_any_engine() -> None:
    offloads: dict[str, Setting] = {
        "kv-offloading-size": 64,
        "cpu-offload-gb": "8",
        "kv-transfer-config": {"kv_connector": "OffloadingConnector"},
    }
    (found,) = restrictions.findings(with_settings(plan_of("w4a16-tp2"), flags=offloads), TDX)
    refused = "offloads to the CPU, and cudaHostRegister is refused"
    assert found.found == "; ".join(f"{flag} {refused}" for flag in offloads)
    assert found.mend == "dsv4 up --profile w4a16-tp2"
    nothing: dict[str, Setting] = {
        "kv-offloading-size": 0,
        "cpu-offload-gb": False,
        "kv-transfer-config": {"kv_connector": "Nixl"},
    }
    assert [found.ok for found in restrictions.findings(with_settings(plan_of("w4a8-tp2"), flags=nothing), TDX)] == [
        True
    ]


def test_where_no_shipped_profile_fits_the_file_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "w4a8-tp4"\n[machine]\ngpus = 8\n[serve.flags]\ntensor-parallel-size = 8\n')
    plan = with_settings(plan_of(str(mine)), env={"VLLM_ALLREDUCE_USE_SYMM_MEM": "1"})
    (found,) = restrictions.findings(plan, TDX)
    assert found.mend == f"mend {mine}, or choose another of: dsv4 profiles"
