"""The look at the machine: every finding at once, each with what mends it."""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from helpers.scripted import Scripted, reply
from helpers.serving import serving

from dsv4_stack import __main__ as cli
from dsv4_stack import assets, doctor, engine, lock, pins, profile
from dsv4_stack.doctor import clock, memory, protection, smi, toolkit
from dsv4_stack.doctor.weights import GIB
from dsv4_stack.errors import NoEngineError, NotReadyError
from dsv4_stack.plan import Plan, make_plan

pytest_plugins = ["helpers.hub_fixtures"]

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
BASE = "canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP"
REVISION = "0bbee82146562d9b7e4687483d348c760e61ef3b"
SHAPES = (
    "NVIDIA supports on Hopper one GPU per VM in CC mode, or all eight with the NVSwitches in PPCIe mode: "
    "ask for a VM of eight, of which the profile uses 2"
)


def plan_of(name: str) -> Plan:
    return make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock())


def nvidia_smi(
    gpus: int, *, gpu: str = "NVIDIA H200, 9.0, 143771, 580.159.04", cc: str = "OFF", mode: str = "None"
) -> str:
    """A script that answers as the real one would for that many GPUs of a kind."""
    return f"""#!/bin/sh
case "$*" in
  "--query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader,nounits")
    for _ in $(seq {gpus}); do echo "{gpu}"; done ;;
  "conf-compute -f") echo "CC status: {cc}" ;;
  "conf-compute -mgm") echo "Multi-GPU Mode: {mode}" ;;
  "conf-compute -grs") echo "Confidential Compute GPUs Ready state: ready" ;;
  *) echo "Invalid combination of input arguments: $*"; exit 2 ;;
esac
"""


@pytest.fixture
def hub() -> Iterator[Scripted]:
    """One that answers one request, with the right time."""
    with serving(Scripted(reply(b"", f"Date: {format_datetime(NOW, usegmt=True)}\r\n"))) as server:
        yield server


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline_environment: None, hub: Scripted) -> Path:  # noqa: ARG001
    """A good one: new Docker, two H200s, large disks, nothing running. Programs are looked for in its `bin` first."""
    monkeypatch.setattr(engine, "versions", lambda: {"engine": "26.1.5", "compose": "2.26.1-4", "buildx": "v0.13.1"})
    monkeypatch.setattr(engine, "info", lambda: {"Runtimes": {"nvidia": {}}, "DockerRootDir": str(tmp_path)})
    monkeypatch.setattr(engine, "image", lambda _: None)
    monkeypatch.setattr(engine, "states", lambda _: {})
    monkeypatch.setattr(clock, "now", lambda: NOW)
    usage = shutil.disk_usage(tmp_path)._replace(free=500 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemTotal: {256 << 20} kB\nMemFree: 1 kB\nMemAvailable: {200 << 20} kB\n")
    for name in ("CPUINFO", "TDX_DEVICE", "SEV_DEVICE"):
        monkeypatch.setattr(protection, name, tmp_path / name)
    monkeypatch.setattr(toolkit, "CDI_FOLDERS", (tmp_path / "cdi",))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    install(tmp_path, nvidia_smi(2))
    for name in ("DSV4_PORT", "DSV4_BIND", "DSV4_PROFILE", "DSV4_ENGINE", "DSV4_SERVE_BASE", "DSV4_PINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DSV4_LOCK", str(tmp_path / "dsv4.lock"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url.removesuffix("/file"))
    monkeypatch.setenv("DSV4_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "cache"))
    return tmp_path


def install(machine: Path, script: str) -> None:
    (machine / "bin" / "nvidia-smi").write_text(script)
    (machine / "bin" / "nvidia-smi").chmod(0o755)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def wrong(findings: list[doctor.Finding]) -> dict[str, str]:
    return {finding.subject: finding.found for finding in findings if not finding.ok}


def test_a_good_machine_line_by_line(machine: Path, hub: Scripted) -> None:
    port = free_port()
    findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": port})
    url = hub.url.removesuffix("/file")
    assert [str(finding) for finding in findings] == [
        "ok    docker engine: 26.1.5",
        "ok    docker compose: 2.26.1-4",
        "ok    docker buildx: v0.13.1",
        "ok    NVIDIA driver: 580.159.04",
        "ok    GPUs in containers: Docker knows the runtime nvidia",
        "ok    GPUs: 2 of 2 (NVIDIA H200)",
        "ok    GPU 0: NVIDIA H200, compute capability 9.0, 140.4 GiB",
        "ok    GPU 1: NVIDIA H200, compute capability 9.0, 140.4 GiB",
        "ok    confidential computing: no TDX or SEV-SNP guest, and CC mode of the GPUs is off",
        f"ok    disk: 500.0 GiB free in {machine}, 160.0 GiB still to fetch",
        f"ok    disk for images: 500.0 GiB free in {machine}, 26.6 GiB for vLLM's image beside 160.0 GiB of weights",
        "ok    memory: 200.0 of 256.0 GiB available; weights are not prefetched, so little is needed",
        "ok    shm: 16g of 256.0 GiB, 200.0 available",
        f"ok    port: 127.0.0.1:{port} is free or ours",
        "ok    Hugging Face token: none, and none is needed: the repositories are public",
        f"ok    Hub: {url} has {BASE}@{REVISION}",
        "ok    clock: within 5 minutes of the Hub's",
    ]
    assert [head.split(b"\r\n")[0].decode() for head in hub.heads] == [
        f"HEAD /{BASE}/resolve/{REVISION}/config.json HTTP/1.1"
    ]
    doctor.raise_for(findings)


def test_all_findings_come_at_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "versions", lambda: {"engine": "20.10.24", "compose": "2.24.3", "buildx": ""})
    install(machine, nvidia_smi(1, gpu="NVIDIA B200, 10.0, 183359, 580.95.05"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": port})
    with pytest.raises(NoEngineError) as caught:
        doctor.raise_for(findings)
    assert caught.value.message.splitlines() == [
        "this machine does not fit the profile:",
        "  docker engine: 20.10.24",
        "    install 25.0 or newer, for healthcheck.start_interval; on Debian: scripts/ensure-docker",
        "  docker compose: 2.24.3",
        "    install 2.24.4 or newer, for !reset in overlays; on Debian: scripts/ensure-docker",
        "  docker buildx: not there",
        "    install 0.10 or newer, for named build contexts and build secrets; on Debian: scripts/ensure-docker",
        "  GPUs: 1 of 2 (NVIDIA B200)",
        "    run on a machine with 2 GPUs, or choose another of: dsv4 profiles",
        "  GPU 0: NVIDIA B200, compute capability 10.0, 179.1 GiB",
        "    this checkpoint's kernels need exactly 9.0 (H100, H200)",
        f"  port: 127.0.0.1:{port} is taken",
        "    choose another: dsv4 up --profile w4a8-tp2 --port N",
    ]
    assert caught.value.next_step == "mend it, or go on with: dsv4 up --skip-doctor"


def test_without_an_engine_the_rest_is_looked_at_too(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NoEngineError("no Docker engine answers: refused", "run: scripts/ensure-docker")

    for name in ("versions", "info", "states", "image"):
        monkeypatch.setattr(engine, name, fail)
    monkeypatch.setenv("PATH", str(machine / "bin") + ":/usr/bin:/bin")
    findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": free_port()})
    assert wrong(findings) == {
        "docker engine": "no Docker engine answers: refused",
        "GPUs in containers": "Docker knows no runtime nvidia, and there is no CDI specification",
    }
    assert [finding.subject for finding in findings if finding.ok] == [
        *("NVIDIA driver", "GPUs", "GPU 0", "GPU 1", "confidential computing"),
        *("disk", "memory", "shm", "port", "Hugging Face token", "Hub", "clock"),
    ]


def test_the_demo_looks_for_no_gpu_and_asks_no_hub(machine: Path, hub: Scripted) -> None:
    install(machine, "#!/bin/sh\nexit 9\n")
    port = free_port()
    assert [str(finding) for finding in doctor.examine(plan_of("demo"), {"DSV4_PORT": port})] == [
        "ok    docker engine: 26.1.5",
        "ok    docker compose: 2.26.1-4",
        "ok    docker buildx: v0.13.1",
        f"ok    disk: 500.0 GiB free in {machine}, 0.0 GiB still to fetch",
        "ok    shm: 1g of 256.0 GiB, 200.0 available",
        f"ok    port: 127.0.0.1:{port} is free or ours",
        "ok    clock: 2026-11-25, not held against another",
    ]
    assert hub.heads == []


def test_json_of_eight_h200s_in_ppcie_mode_inside_tdx(
    machine: Path, hub: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    """End to end: the verb, and a real process that is called nvidia-smi."""
    install(machine, nvidia_smi(8, mode="Protected PCIe"))
    (machine / "CPUINFO").write_text("processor\t: 0\nflags\t\t: fpu tdx_guest sse2\n")
    port = free_port()
    assert cli.main(["doctor", "--json", "--port", port]) == 0
    out, err = capsys.readouterr()
    found = {entry["subject"]: entry for entry in json.loads(out)}
    assert err == ""
    assert found["GPUs"] == {
        "subject": "GPUs",
        "ok": True,
        "level": "ok",
        "found": "8 of 2 (NVIDIA H200)",
        "mend": "",
    }
    assert [subject for subject in found if "confidential" in subject or subject.startswith("GPU ")] == [
        *("GPU 0", "GPU 1", "confidential computing", "profile under confidential computing")
    ]
    assert (
        found["confidential computing"]["found"]
        == "an Intel TDX guest, 8 GPUs in PPCIe mode, of which the profile uses 2"
    )
    assert {entry["level"] for entry in found.values()} == {"ok"}
    assert len(hub.heads) == 1


def test_two_h200s_inside_tdx_are_shown_as_a_warning_and_not_refused(
    machine: Path, hub: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    install(machine, nvidia_smi(2, cc="ON"))
    (machine / "TDX_DEVICE").touch()
    assert cli.main(["doctor", "--port", free_port()]) == 0
    out, err = capsys.readouterr()
    at = out.index("WARN ")
    assert out[at:].splitlines()[:3] == [
        "WARN  confidential computing: an Intel TDX guest, 2 GPUs with CC mode on, not a supported shape",
        f"      {SHAPES}",
        "ok    profile under confidential computing: w4a8-tp2 turns off what is known to fail there",
    ]
    assert (out.count("WARN "), out.count("WRONG"), err, len(hub.heads)) == (1, 0, "", 1)


def test_up_refuses_a_profile_for_bare_metal_inside_tdx(
    machine: Path, hub: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    install(machine, nvidia_smi(8, mode="Protected PCIe"))
    (machine / "TDX_DEVICE").touch()
    assert cli.main(["up", "--profile", "w4a8-tp2-baremetal", "--port", free_port()]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "error: this machine does not fit the profile:",
        (
            "  profile under confidential computing: disable-custom-all-reduce is false, and custom all-reduce needs "
            "CUDA IPC; VLLM_ALLREDUCE_USE_SYMM_MEM is not 0: all-reduce over symmetric memory, on by default, is CUDA "
            "IPC, which a confidential VM does not allow"
        ),
        "    dsv4 up --profile w4a8-tp2",
        "  next: mend it, or go on with: dsv4 up --skip-doctor",
    ]
    assert len(hub.heads) == 1


def test_no_driver(machine: Path, hub: Scripted) -> None:
    install(
        machine, "#!/bin/sh\necho NVIDIA-SMI has failed because it could not communicate with the driver.\nexit 9\n"
    )
    findings = doctor.examine(plan_of("w4a16-tp2"), {"DSV4_PORT": free_port()})
    assert wrong(findings) == {
        "NVIDIA driver": "nvidia-smi ended with exit code 9: "
        "NVIDIA-SMI has failed because it could not communicate with the driver.",
        "GPUs": "0 of 2, nvidia-smi lists none",
    }
    with pytest.raises(NotReadyError, match="R580 or newer"):
        doctor.raise_for(findings)
    assert len(hub.heads) == 1


def test_a_driver_that_hangs_is_waited_for_once(machine: Path, hub: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, f"#!/bin/sh\necho >>{machine}/calls\nexec sleep 60\n")
    monkeypatch.setattr(smi, "TIMEOUT_S", 0.5)
    findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": free_port()})
    assert wrong(findings)["NVIDIA driver"] == "nvidia-smi does not answer within 0.5 s"
    assert len((machine / "calls").read_text().splitlines()) == 1
    assert len(hub.heads) == 1


@pytest.mark.parametrize(
    ("text", "version"),
    [("26.1.5+dfsg1", (26, 1, 5)), ("github.com/docker/buildx 0.13.1+ds1", (0, 13, 1)), ("v2.30", (2, 30)), ("", (0,))],
)
def test_versions_are_read_from_what_the_tools_print(text: str, version: tuple[int, ...]) -> None:
    assert engine.version_tuple(text) == version
