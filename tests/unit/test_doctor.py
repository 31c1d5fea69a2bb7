"""The look at the machine: every finding at once, each with what mends it."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.hub import CONFIG_BASE

from dsv4_stack import assets, doctor, engine, lock, pins, profile
from dsv4_stack.errors import ConfigError, NoEngineError, NoSpaceError, NotReadyError
from dsv4_stack.guest import convert
from dsv4_stack.plan import Plan, make_plan

H200 = ["NVIDIA H200", "9.0", "143771 MiB"]


def plan_of(name: str) -> Plan:
    return make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A good one: new Docker, two H200s, nothing running."""
    monkeypatch.setattr(engine, "versions", lambda: {"engine": "26.1.5", "compose": "2.26.1-4", "buildx": "v0.13.1"})
    monkeypatch.setattr(engine, "states", lambda _: {})
    monkeypatch.setattr(doctor, "nvidia_smi", lambda _: [H200, H200])
    monkeypatch.delenv("DSV4_PORT", raising=False)
    monkeypatch.setenv("DSV4_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "cache"))
    return tmp_path


def wrong(findings: list[doctor.Finding]) -> dict[str, str]:
    return {finding.subject: finding.found for finding in findings if not finding.ok}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_a_good_machine_has_no_findings_but_perhaps_its_disk(machine: Path) -> None:
    assert machine.exists()
    findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": free_port()})
    assert wrong(findings).keys() <= {"disk"}
    assert [finding.subject for finding in findings] == [
        "docker engine",
        "docker compose",
        "docker buildx",
        "GPUs",
        "GPU 0",
        "GPU 1",
        "disk",
        "port",
    ]


def test_all_findings_come_at_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.exists()
    monkeypatch.setattr(engine, "versions", lambda: {"engine": "20.10.24", "compose": "", "buildx": "v0.13.1"})
    monkeypatch.setattr(doctor, "nvidia_smi", lambda _: [["NVIDIA B200", "10.0", "183359 MiB"]])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": port})
    found = wrong(findings)
    found.pop("disk", None)
    assert found == {
        "docker engine": "20.10.24",
        "docker compose": "not there",
        "GPUs": "1 of 2 (NVIDIA B200)",
        "GPU 0": "NVIDIA B200, compute capability 10.0",
        "port": f"127.0.0.1:{port} is taken",
    }
    with pytest.raises(NoEngineError) as caught:
        doctor.raise_for(findings)
    assert caught.value.message.splitlines()[:3] == [
        "this machine does not fit the profile:",
        "  docker engine: 20.10.24",
        "    install 25.0 or newer; on Debian: scripts/ensure-docker",
    ]


def test_a_small_disk_is_exit_code_7_with_the_numbers(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = doctor.shutil.disk_usage(machine)._replace(free=100 * doctor.GIB)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": free_port()})
    assert wrong(findings) == {"disk": f"100.0 GiB free in {machine}, 160.0 GiB still to fetch"}
    with pytest.raises(NoSpaceError):
        doctor.raise_for(findings)


def test_what_is_already_there_needs_no_room(machine: Path) -> None:
    folder = machine / "DeepSeek-V4-Flash-W4A8-FP8"
    folder.mkdir()
    with (folder / "model-00001-of-00004.safetensors").open("wb") as shard:
        shard.truncate(160 * doctor.GIB)
    findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": free_port()})
    assert wrong(findings) == {}


def test_the_lock_knows_the_size_to_the_byte() -> None:
    plan = plan_of("w4a8-tp2")
    files = {name: lock.LockedFile(size=size, sha256="a" * 64) for name, size in (("a", 3), ("b", 4))}
    known = lock.LockedRepo(requested="main", revision="b" * 40, files=files)
    locked = replace(plan, lock=lock.Lock(repos={plan.checkpoint.base.repo: known}))
    assert (doctor.needed_bytes(plan), doctor.needed_bytes(locked), doctor.needed_bytes(plan_of("demo"))) == (
        doctor.WEIGHTS_BYTES,
        7,
        0,
    )


def test_the_demo_looks_for_no_gpu(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.exists()
    monkeypatch.setattr(doctor, "nvidia_smi", lambda _: [])
    findings = doctor.examine(plan_of("demo"), {"DSV4_PORT": free_port()})
    assert wrong(findings) == {}
    with pytest.raises(NotReadyError, match="nvidia-smi lists none"):
        doctor.raise_for(doctor.examine(plan_of("w4a16-tp2"), {"DSV4_PORT": free_port()}))


@pytest.mark.parametrize(
    ("text", "version"),
    [("26.1.5+dfsg1", (26, 1, 5)), ("github.com/docker/buildx 0.13.1+ds1", (0, 13, 1)), ("v2.30", (2, 30)), ("", (0,))],
)
def test_versions_are_read_from_what_the_tools_print(text: str, version: tuple[int, ...]) -> None:
    assert engine.version_tuple(text) == version


def test_a_port_that_our_failing_container_takes_in_turns_is_ours(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        between_two_starts = engine.State(
            service="serve",
            container="c0ffee",
            image="serve",
            status="restarting",
            health="",
            exit_code=6,
            labels={},
            started_at="2026-11-23T22:00:00Z",
            restarts=3,
            published="",
            reserved=f"127.0.0.1:{port}",
        )
        monkeypatch.setattr(engine, "states", lambda _: {"serve": between_two_starts})
        findings = doctor.examine(plan_of("w4a8-tp2"), {"DSV4_PORT": str(port)})
    assert wrong(findings).keys() <= {"disk"}


def test_the_config_that_is_there_is_linted(machine: Path) -> None:
    folder = machine / "DeepSeek-V4-Flash-W4A8-FP8"
    folder.mkdir()
    plan, site = plan_of("w4a8-tp2"), {"DSV4_PORT": free_port()}
    assert [finding.subject for finding in doctor.examine(plan, site) if finding.subject == "config"] == []
    _, converted = convert.convert(CONFIG_BASE.read_bytes(), "config.json")
    (folder / "config.json").write_bytes(converted)
    (found,) = [finding for finding in doctor.examine(plan, site) if finding.subject == "config"]
    assert (found.ok, found.found.partition(":")[0]) == (True, "FP8")
    (folder / "config.json").write_bytes(converted.replace(b'"group_size": 128', b'"group_size": 64'))
    (found,) = [finding for finding in doctor.examine(plan, site) if finding.subject == "config"]
    assert (found.ok, found.found) == (False, "experts' weights.group_size is 64, not 128")
    open_draft = converted.replace(b'"re:.*\\\\.layers\\\\.43\\\\..*"', b'"nothing"').replace(
        b'"re:.*mtp.*"', b'"re:mtp.*"'
    )
    (folder / "config.json").write_bytes(open_draft)
    drafting = replace(plan, profile=replace(plan.profile, serve=replace(plan.profile.serve, mtp=True)))
    found_off, found_on = (
        finding for each in (plan, drafting) for finding in doctor.examine(each, site) if finding.subject == "config"
    )
    assert (found_off.ok, found_off.found.rpartition("; ")[2]) == (True, "MTP draft not excluded")
    assert (found_on.ok, found_on.mend) == (False, f"materialize {folder}/config.json again, or leave mtp off")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="the config is none of a quantized DeepSeek-V4"):
        doctor.raise_for([finding for finding in doctor.examine(plan, site) if finding.subject == "config"])
