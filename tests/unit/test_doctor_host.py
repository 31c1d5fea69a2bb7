"""The host: disk, memory, port, the extra CA, the token, and the config.json that is there."""

import errno
import shutil
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import tls
from helpers.hub import CONFIG_BASE
from helpers.states import state

from dsv4_stack import assets, doctor, engine, lock, pins, profile
from dsv4_stack.doctor import authority, config, disk, memory, port, token, weights
from dsv4_stack.doctor.finding import Finding
from dsv4_stack.doctor.weights import GIB
from dsv4_stack.errors import ConfigError, NoEngineError, NoSpaceError, UsageError
from dsv4_stack.guest import convert
from dsv4_stack.plan import Plan, make_plan
from dsv4_stack.profile import Setting

pytest_plugins = ["helpers.hub_fixtures"]

NAME = "DeepSeek-V4-Flash-W4A8-FP8"
LARGER = "name a folder on a larger disk: dsv4 up --profile w4a8-tp2 --weights DIR"


def plan_of(name: str, **flags: Setting) -> Plan:
    plan = make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock())
    serve = replace(plan.profile.serve, flags={**plan.profile.serve.flags, **flags})
    return replace(plan, profile=replace(plan.profile, serve=serve))


def lines(findings: Iterable[Finding]) -> list[str]:
    return [line for finding in findings for line in str(finding).splitlines()]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline_environment: None) -> dict[str, int]:  # noqa: ARG001
    """GiB that are free everywhere; and no image is there."""
    free = {"GiB": 170}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free["GiB"] * GIB))
    monkeypatch.setattr(engine, "image", lambda _: None)
    monkeypatch.delenv("DSV4_SERVE_BASE", raising=False)
    monkeypatch.setenv("DSV4_WEIGHTS_DIR", str(tmp_path / "not" / "yet"))
    return free


def test_a_small_disk_is_exit_code_7_with_the_numbers(free: dict[str, int], tmp_path: Path) -> None:
    free["GiB"] = 100
    findings = list(disk.findings(plan_of("w4a8-tp2"), {}, {}))
    assert lines(findings) == [
        f"WRONG disk: 100.0 GiB free in {tmp_path}, 160.0 GiB still to fetch",
        f"      {LARGER}",
    ]
    with pytest.raises(NoSpaceError):
        doctor.raise_for(findings)


def test_weights_and_image_on_one_disk_need_room_together(free: dict[str, int], tmp_path: Path) -> None:
    plan, info = plan_of("w4a8-tp2"), {"DockerRootDir": str(tmp_path)}
    together = "26.6 GiB for vLLM's image beside 160.0 GiB of weights"
    assert lines(disk.findings(plan, {}, info)) == [
        f"ok    disk: 170.0 GiB free in {tmp_path}, 160.0 GiB still to fetch",
        f"WRONG disk for images: 170.0 GiB free in {tmp_path}, {together}",
        (
            "      make room: docker image prune; docker builder prune, or weights elsewhere: "
            "dsv4 up --profile w4a8-tp2 --weights DIR"
        ),
    ]
    free["GiB"] = 187
    assert [finding.ok for finding in disk.findings(plan, {}, info)] == [True, True]


def test_an_image_on_a_disk_of_its_own(free: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free["GiB"] = 20
    monkeypatch.setattr(disk, "_are_together", lambda *_: False)
    found = lines(disk.findings(plan_of("w4a8-tp2"), {}, {"DockerRootDir": str(tmp_path)}))
    assert found[2:] == [
        f"WRONG disk for images: 20.0 GiB free in {tmp_path}, 26.6 GiB for vLLM's image",
        "      make room: docker image prune; docker builder prune",
    ]


def test_the_containerd_store_is_elsewhere(
    free: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free["GiB"] = 500
    monkeypatch.setattr(disk, "CONTAINERD", tmp_path / "containerd")
    (tmp_path / "containerd").mkdir()
    info = {"DockerRootDir": str(tmp_path), "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
    assert lines(disk.findings(plan_of("w4a8-tp2"), {}, info))[1].startswith(
        f"ok    disk for images: 500.0 GiB free in {tmp_path}/containerd, "
    )


@pytest.mark.parametrize("there", ["built", "base", "another base"])
def test_an_image_that_is_there_needs_no_room(
    free: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    free["GiB"] = 161
    plan = plan_of("w4a8-tp2")
    if there == "another base":
        monkeypatch.setenv("DSV4_SERVE_BASE", "mirror/vllm")
    reference = {"built": plan.serve.reference, "base": plan.serve.base, "another base": "mirror/vllm"}[there]
    monkeypatch.setattr(engine, "image", lambda name: {"Id": "sha256:1"} if name == reference else None)
    assert lines(disk.findings(plan, {}, {"DockerRootDir": str(tmp_path)}))[1:] == [
        "ok    disk for images: the engine's image is there already"
    ]


def test_of_images_on_another_machine_nothing_is_said(free: dict[str, int], tmp_path: Path) -> None:
    assert free["GiB"] == 170
    elsewhere = {"DockerRootDir": str(tmp_path / "var" / "lib" / "docker")}
    for info in (elsewhere, {"DockerRootDir": ""}, {}):
        assert [finding.subject for finding in disk.findings(plan_of("w4a8-tp2"), {}, info)] == ["disk"]


def test_an_engine_that_goes_away_meanwhile(
    free: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise NoEngineError("no Docker engine answers: refused")

    free["GiB"] = 500
    monkeypatch.setattr(engine, "image", fail)
    found = list(disk.findings(plan_of("w4a8-tp2"), {}, {"DockerRootDir": str(tmp_path)}))
    assert [finding.subject for finding in found if finding.ok] == ["disk", "disk for images"]


def test_what_is_already_there_needs_no_room(free: dict[str, int], tmp_path: Path) -> None:
    free["GiB"] = 1
    folder = tmp_path / NAME / ".dsv4" / "parts"
    folder.mkdir(parents=True)
    with (folder / "model-00001-of-00004.safetensors").open("wb") as shard:
        shard.truncate(159 * GIB)
    (folder / "gone").symlink_to(folder / "nowhere")
    assert lines(disk.findings(plan_of("w4a8-tp2"), {"DSV4_WEIGHTS_DIR": str(tmp_path)}, {})) == [
        f"ok    disk: 1.0 GiB free in {tmp_path}, 1.0 GiB still to fetch"
    ]


def test_the_lock_knows_the_size_to_the_byte() -> None:
    plan = plan_of("w4a8-tp2")
    files = {name: lock.LockedFile(size=size, sha256="a" * 64) for name, size in (("a", 3), ("b", 4))}
    known = lock.LockedRepo(requested="main", revision="b" * 40, files=files)
    locked = replace(plan, lock=lock.Lock(repos={plan.checkpoint.base.repo: known}))
    assert [doctor.needed_bytes(each) for each in (plan, locked, plan_of("demo"))] == [160 * GIB, 7, 0]
    assert [weights.loaded_bytes(each) for each in (plan, locked)] == [int(158.19 * GIB), 7]


@pytest.fixture
def meminfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    return tmp_path / "meminfo"


def remember(meminfo: Path, total: int, available: int) -> None:
    """In GiB."""
    meminfo.write_text(
        f"MemTotal:       {total << 20} kB\nMemFree:        1 kB\n"
        f"MemAvailable:   {available << 20} kB\nHugePages_Total: 0\n"
    )


@pytest.mark.parametrize(
    ("available", "level", "mend"),
    [
        (180, "ok", ""),
        (
            160,
            "warning",
            'set safetensors-load-strategy = "lazy" in a profile of your own, or have 175.8 GiB available',
        ),
        (
            100,
            "wrong",
            'set safetensors-load-strategy = "lazy" in a profile of your own, or have 175.8 GiB available',
        ),
    ],
)
def test_a_prefetched_checkpoint_needs_its_size_in_memory(meminfo: Path, available: int, level: str, mend: str) -> None:
    remember(meminfo, 200, available)
    found = next(memory.findings(plan_of("w4a8-tp2", **{"safetensors-load-strategy": "prefetch"})))
    assert found.document() == {
        "subject": "memory",
        "ok": level != "wrong",
        "level": level,
        "found": f"{available}.0 of 200.0 GiB available; "
        "safetensors-load-strategy = prefetch holds 158.2 GiB of weights in it",
        "mend": mend,
    }


def test_lazy_weights_need_little_memory(meminfo: Path) -> None:
    remember(meminfo, 64, 48)
    assert lines(memory.findings(plan_of("w4a8-tp2"))) == [
        "ok    memory: 48.0 of 64.0 GiB available; weights are not prefetched, so little is needed",
        "ok    shm: 16g of 64.0 GiB, 48.0 available",
    ]


@pytest.mark.parametrize(
    ("total", "available", "start"), [(32, 20, "ok   "), (32, 8, "WARN "), (15, 14, "WRONG"), (16, 16, "ok   ")]
)
def test_shm_is_within_reach(meminfo: Path, total: int, available: int, start: str) -> None:
    remember(meminfo, total, available)
    found = lines(list(memory.findings(plan_of("w4a8-tp2")))[1:])
    mend = "      run on a machine with more memory, or set machine.shm_size in a profile of your own"
    assert found == [
        f"{start} shm: 16g of {total}.0 GiB, {available}.0 available",
        *([] if start == "ok   " else [mend]),
    ]


def test_megabytes_of_shm(meminfo: Path) -> None:
    remember(meminfo, 1, 1)
    plan = plan_of("demo")
    small = replace(plan, profile=replace(plan.profile, machine=replace(plan.profile.machine, shm_size="1025m")))
    assert [finding.ok for finding in memory.findings(small)] == [False]


@pytest.mark.parametrize("text", [None, "", "MemTotal: 1 kB\n"])
def test_memory_that_is_not_known(meminfo: Path, text: str | None) -> None:
    if text is not None:
        meminfo.write_text(text)
    assert lines(memory.findings(plan_of("w4a8-tp2"))) == [f"WARN  memory: not known: {meminfo} says nothing"]


def test_a_port_that_our_failing_container_takes_in_turns_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSV4_BIND", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        between_two_starts = state(
            status="restarting", health="", exit_code=6, published="", reserved=f"127.0.0.1:{number}"
        )
        monkeypatch.setattr(engine, "states", lambda _: {"serve": between_two_starts})
        site = {"DSV4_PORT": str(number)}
        assert lines(port.findings(plan_of("w4a8-tp2"), site)) == [f"ok    port: 127.0.0.1:{number} is free or ours"]
        monkeypatch.setattr(engine, "states", lambda _: {})
        assert lines(port.findings(plan_of("w4a8-tp2"), site)) == [
            f"WRONG port: 127.0.0.1:{number} is taken",
            "      choose another: dsv4 up --profile w4a8-tp2 --port N",
        ]


def test_a_port_that_only_docker_may_bind_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setattr(port.socket.socket, "bind", refuse)
        assert not port._can_bind("127.0.0.1", number)
    assert port._can_bind("127.0.0.1", number)


def test_each_port_of_what_is_laid_over_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "states", lambda _: {})
    with socket.socket() as taken, socket.socket() as free:
        for probe in (taken, free):
            probe.bind(("127.0.0.1", 0))
        taken.listen()
        busy, idle = (str(probe.getsockname()[1]) for probe in (taken, free))
        free.close()
        site = {
            "DSV4_PORT": busy,
            "DSV4_EDGE_BIND": "127.0.0.1",
            "DSV4_EDGE_PORT": idle,
            "DSV4_PROMETHEUS_PORT": busy,
            "DSV4_GRAFANA_PORT": idle,
        }
        assert lines(port.findings(plan_of("w4a8-tp2"), site, ("monitoring", "edge"))) == [
            f"ok    edge's port: 127.0.0.1:{idle} is free or ours",
            f"WRONG prometheus's port: 127.0.0.1:{busy} is taken",
            "      choose another: DSV4_PROMETHEUS_PORT=N dsv4 up --profile w4a8-tp2",
            f"ok    grafana's port: 127.0.0.1:{idle} is free or ours",
        ]
    with pytest.raises(UsageError) as caught:
        list(port.findings(plan_of("w4a8-tp2"), {"DSV4_EDGE_PORT": "https"}, ("edge",)))
    assert str(caught.value) == (
        "the port should be a number from 1 to 65535, not 'https'\n  next: mend DSV4_EDGE_PORT"
    )


CA_MEND = "      name a PEM file in $DSV4_EXTRA_CA that begins with -----BEGIN CERTIFICATE-----, or unset it"


def test_an_extra_ca_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSV4_EXTRA_CA", raising=False)
    assert list(authority.findings()) == []
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tls.CA))
    assert lines(authority.findings()) == [f"ok    extra CA: {tls.CA}, certificates: 1"]
    both = tmp_path / "both.pem"
    both.write_bytes(tls.CA.read_bytes() + tls.CA.with_name("server.pem").read_bytes())
    monkeypatch.setenv("DSV4_EXTRA_CA", str(both))
    assert lines(authority.findings()) == [f"ok    extra CA: {both}, certificates: 2"]


@pytest.mark.parametrize(
    "content", [b"", b"no PEM\n", b"\x30\x82\x01", tls.CA.with_name("server.key").read_bytes()], ids=range(4)
)
def test_an_extra_ca_without_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    monkeypatch.setenv("DSV4_EXTRA_CA", str(path))
    (found,) = authority.findings()
    assert lines([found]) == [f"WRONG extra CA: {path} has no certificate in PEM that can be loaded", CA_MEND]
    assert found.error is ConfigError


def test_an_extra_ca_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tmp_path / "none.pem"))
    assert lines(authority.findings()) == [
        f"WRONG extra CA: {tmp_path}/none.pem cannot be read: No such file or directory",
        CA_MEND,
    ]
    monkeypatch.setenv("DSV4_EXTRA_CA", str(tmp_path))
    assert lines(authority.findings())[0] == f"WRONG extra CA: {tmp_path} cannot be read: Is a directory"


TOKEN_MEND = "      mend the file that $HF_TOKEN_FILE names, or unset it: the repositories are public"


def test_a_token_is_not_needed_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline_environment: None
) -> None:
    assert offline_environment is None
    plan = plan_of("w4a8-tp2")
    assert list(token.findings(plan_of("demo"))) == []
    assert lines(token.findings(plan)) == [
        "ok    Hugging Face token: none, and none is needed: the repositories are public"
    ]
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert lines(token.findings(plan)) == ["ok    Hugging Face token: from $HF_TOKEN"]
    monkeypatch.setenv("HF_TOKEN", "hf secret")
    assert lines(token.findings(plan)) == [
        "WRONG Hugging Face token: the token of the Hub has characters that no token has",
        "      mend $HF_TOKEN or the file that $HF_TOKEN_FILE names",
    ]
    path = tmp_path / "token"
    path.write_text("hf_secret\n")
    monkeypatch.setenv("HF_TOKEN_FILE", str(path))
    assert lines(token.findings(plan)) == [f"ok    Hugging Face token: from {path}"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\n", "is empty"),
        (b"hf secret", "has characters that no token has"),
        (b"\xff", "cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_a_token_file_that_does_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("HF_TOKEN_FILE", str(path))
    (found,) = token.findings(plan_of("w4a8-tp2"))
    assert (lines([found]), found.error) == (
        [f"WRONG Hugging Face token: {path} {problem}", TOKEN_MEND],
        ConfigError,
    )


def test_the_config_that_is_there_is_linted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / NAME
    folder.mkdir()
    plan, site = plan_of("w4a8-tp2"), {"DSV4_WEIGHTS_DIR": str(tmp_path)}
    assert list(config.findings(plan, site)) == []
    _, converted = convert.convert(CONFIG_BASE.read_bytes(), "config.json")
    (folder / "config.json").write_bytes(converted)
    (found,) = config.findings(plan, site)
    assert (found.ok, found.found.partition(":")[0]) == (True, "FP8")
    (folder / "config.json").write_bytes(converted.replace(b'"group_size": 128', b'"group_size": 64'))
    (found,) = config.findings(plan, site)
    assert (found.ok, found.found) == (False, "experts' weights.group_size is 64, not 128")
    open_draft = converted.replace(b'"re:.*\\\\.layers\\\\.43\\\\..*"', b'"nothing"').replace(
        b'"re:.*mtp.*"', b'"re:mtp.*"'
    )
    (folder / "config.json").write_bytes(open_draft)
    drafting = replace(plan, profile=replace(plan.profile, serve=replace(plan.profile.serve, mtp=True)))
    found_off, found_on = (finding for each in (plan, drafting) for finding in config.findings(each, site))
    assert (found_off.ok, found_off.found.rpartition("; ")[2]) == (True, "MTP draft not excluded")
    assert (found_on.ok, found_on.mend) == (False, f"materialize {folder}/config.json again, or leave mtp off")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="the config is none of a quantized DeepSeek-V4"):
        doctor.raise_for(list(config.findings(plan, site)))


def test_a_config_that_may_not_be_read_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faked, because root may read everything."""

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "config.json").touch()
    plan = plan_of("w4a8-tp2")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert lines(config.findings(plan, {"DSV4_WEIGHTS_DIR": str(tmp_path)})) == [
        f"WARN  config: {tmp_path}/{NAME}/config.json cannot be read: Permission denied",
        "      run it as the user of the weights",
    ]
