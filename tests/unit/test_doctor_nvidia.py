"""The driver, the toolkit and the GPUs, of which nvidia-smi and Docker say what a test wants them to."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dsv4_stack import assets, lock, pins, profile
from dsv4_stack.doctor import driver, gpus, smi, toolkit
from dsv4_stack.doctor.finding import Finding
from dsv4_stack.doctor.smi import Gpu, Listing, Reply
from dsv4_stack.doctor.weights import GIB
from dsv4_stack.plan import Plan, make_plan
from dsv4_stack.profile import Setting

H200 = Gpu(name="NVIDIA H200", capability="9.0", memory=143771 << 20, driver="580.159.04")
CONFIGURE = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
INSTALL = (
    "install it: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html; then: "
)


def plan_of(name: str, **flags: Setting) -> Plan:
    plan = make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock())
    serve = replace(plan.profile.serve, flags={**plan.profile.serve.flags, **flags})
    return replace(plan, profile=replace(plan.profile, serve=serve))


def lines(findings: Iterable[Finding]) -> list[str]:
    return [line for finding in findings for line in str(finding).splitlines()]


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("NVIDIA H200, 9.0, 143771, 580.159.04\n", (H200,)),
        ("NVIDIA H200, 9.0, [N/A], 580.159.04\n", (replace(H200, memory=None),)),
        ("No devices were found\n", ()),
        ("", ()),
    ],
)
def test_a_listing_is_read(monkeypatch: pytest.MonkeyPatch, text: str, gpus: tuple[Gpu, ...]) -> None:
    monkeypatch.setattr(smi, "ask", lambda *_: Reply(text=text))
    assert smi.listing() == Listing(gpus=gpus)


def test_there_may_be_no_nvidia_smi_or_one_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smi.ask("-L") == Reply(problem="there is no nvidia-smi")
    (tmp_path / "nvidia-smi").write_text("no program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert smi.ask("-L") == Reply(problem="nvidia-smi does not run: Exec format error")


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("580.65.06", "ok    NVIDIA driver: 580.65.06"),
        ("595.58.03", "ok    NVIDIA driver: 595.58.03"),
        (
            "570.172.08",
            (
                "WARN  NVIDIA driver: 570.172.08, older than the R580 of the engine's CUDA 13; "
                "the image's cuda-compat may bridge that, which we have not seen"
            ),
        ),
        ("530.30.02", "WRONG NVIDIA driver: 530.30.02, older than the R580 of the engine's CUDA 13"),
        ("", "WRONG NVIDIA driver: of no version, older than the R580 of the engine's CUDA 13"),
    ],
)
def test_the_driver_is_new_enough_for_cuda_13(version: str, line: str) -> None:
    found = lines(driver.findings(Listing(gpus=(replace(H200, driver=version),))))
    assert found == [line, *([] if line.startswith("ok") else [f"      {driver.INSTALL}"])]


def test_a_driver_without_gpus_has_no_version() -> None:
    assert lines(driver.findings(Listing())) == [
        "WARN  NVIDIA driver: nvidia-smi answers and lists no GPU, so the version is not known",
        f"      {driver.INSTALL}",
    ]


def test_each_rank_needs_room_for_its_share() -> None:
    h100 = replace(H200, name="NVIDIA H100 80GB HBM3", memory=81559 << 20)
    assert lines(gpus.findings(plan_of("w4a8-tp2"), Listing(gpus=(H200, h100)))) == [
        "ok    GPUs: 2 of 2 (NVIDIA H200)",
        "ok    GPU 0: NVIDIA H200, compute capability 9.0, 140.4 GiB",
        "WRONG GPU 1: NVIDIA H100 80GB HBM3, compute capability 9.0, 79.6 GiB",
        (
            "      vLLM may take 71.7 GiB of it (gpu-memory-utilization), and needs more than 79.1 for weights and KV "
            "cache: choose a profile of more GPUs: dsv4 profiles"
        ),
    ]
    assert {finding.ok for finding in gpus.findings(plan_of("w4a8-tp4"), Listing(gpus=(h100,) * 4))} == {True}


def test_what_vllm_may_take_is_the_profiles_to_say() -> None:
    half = plan_of("w4a8-tp2", **{"gpu-memory-utilization": 0.5})
    found = lines(gpus.findings(half, Listing(gpus=(H200, H200))))
    assert [line.split(" GiB of it")[0] for line in found if line.startswith(" ")] == ["      vLLM may take 70.2"] * 2
    usual = plan_of("w4a8-tp2", **{"gpu-memory-utilization": False})
    nvl = replace(H200, memory=87 * GIB)
    assert {finding.ok for finding in gpus.findings(usual, Listing(gpus=(nvl, nvl)))} == {True}


def test_the_lock_says_what_a_share_is() -> None:
    plan = plan_of("w4a8-tp2")
    files = {"model-00001-of-00001.safetensors": lock.LockedFile(size=300 * GIB, sha256="a" * 64)}
    known = lock.LockedRepo(requested="main", revision="b" * 40, files=files)
    locked = replace(plan, lock=lock.Lock(repos={plan.checkpoint.base.repo: known}))
    found = lines(gpus.findings(locked, Listing(gpus=(H200, H200))))
    assert [line.rpartition(" for weights")[0][-5:] for line in found if line.startswith(" ")] == ["150.0"] * 2


def test_both_problems_of_a_gpu_and_what_is_not_known() -> None:
    old = replace(H200, name="NVIDIA A100-SXM4-40GB", capability="8.0", memory=40960 << 20)
    unknown = replace(H200, memory=None)
    assert lines(gpus.findings(plan_of("w4a8-tp2"), Listing(gpus=(old, unknown)))) == [
        "ok    GPUs: 2 of 2 (NVIDIA A100-SXM4-40GB)",
        "WRONG GPU 0: NVIDIA A100-SXM4-40GB, compute capability 8.0, 40.0 GiB",
        (
            "      this checkpoint's kernels need exactly 9.0 (H100, H200); vLLM may take 36.0 GiB of it "
            "(gpu-memory-utilization), and needs more than 79.1 for weights and KV cache: "
            "choose a profile of more GPUs: dsv4 profiles"
        ),
        "WARN  GPU 1: NVIDIA H200, compute capability 9.0, memory not known",
        "      see that there are more than 79.1 GiB for weights",
    ]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder, and a machine without CDI specifications."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(toolkit, "CDI_FOLDERS", (tmp_path / "etc", tmp_path / "run"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def add(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_docker_knows_the_runtime_or_nothing_of_nvidia(programs: Path) -> None:
    assert lines(toolkit.findings({"Runtimes": {"runc": {}, "nvidia": {}}})) == [
        "ok    GPUs in containers: Docker knows the runtime nvidia"
    ]
    nothing: dict[str, object] = {"Runtimes": {"runc": {}}, "DiscoveredDevices": None}
    first = "WRONG GPUs in containers: Docker knows no runtime nvidia, and there is no CDI specification"
    assert lines(toolkit.findings(nothing)) == [first, f"      {INSTALL}{CONFIGURE}"]
    add(programs, "nvidia-ctk")
    assert lines(toolkit.findings(nothing)) == [first, f"      {CONFIGURE}"]


def test_cdi_devices_do_from_the_engine_on_that_takes_them(programs: Path) -> None:
    add(programs, "nvidia-ctk")
    devices = [{"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in ("0", "1", "all")]
    info = {"DiscoveredDevices": [*devices, {"Source": "cdi", "ID": "vendor.com/net=0"}], "ServerVersion": "29.2.0"}
    assert lines(toolkit.findings(info)) == ["ok    GPUs in containers: Docker lists 3 CDI devices nvidia.com/gpu"]
    assert lines(toolkit.findings(info | {"ServerVersion": "28.5.2"})) == [
        (
            "WARN  GPUs in containers: Docker lists 3 CDI devices nvidia.com/gpu, "
            "but before 29.2 it takes `driver: nvidia` from the runtime's hook"
        ),
        f"      {CONFIGURE}",
    ]


def test_a_hook_or_a_specification_that_docker_does_not_show_is_a_warning(programs: Path) -> None:
    run = programs.parent / "run"
    run.mkdir()
    (run / "other.json").write_text('{"kind": "vendor.com/net"}')
    assert [finding.ok for finding in toolkit.findings({})] == [False]
    (run / "nvidia.yaml").write_text("kind: nvidia.com/gpu\n")
    assert lines(toolkit.findings({})) == [
        f"WARN  GPUs in containers: {run}/nvidia.yaml is there, but Docker lists none of its devices",
        f"      {INSTALL}{CONFIGURE}",
    ]
    add(programs, "nvidia-container-runtime-hook")
    assert lines(toolkit.findings({}))[0] == (
        "WARN  GPUs in containers: nvidia-container-runtime-hook is there, but Docker knows no runtime nvidia"
    )
