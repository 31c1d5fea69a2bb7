"""The committed files are the golden files: what render makes of the shipped pins and profiles, byte for byte."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsv4_stack import assets, lock, pins, profile, render
from dsv4_stack.errors import ConfigError, StaleError, UsageError
from dsv4_stack.plan import OVERLAYS as OVERLAY_NAMES
from dsv4_stack.plan import make_plan

LOCK = lock.load(assets.ROOT / assets.LOCK_NAME)
PINS = lock.apply(pins.load(assets.PINS), LOCK)
RENDERED = render.render(PINS, profile.shipped().values(), LOCK)
OVERLAYS = [f"compose/{name}.yaml" for name in OVERLAY_NAMES]
COMPOSE_FILES = sorted(path for path in RENDERED if path.startswith("compose/compose"))
MONITORING, GPU_METRICS, EDGE = OVERLAYS


def test_committed_files_are_as_rendered() -> None:
    render.check(RENDERED, assets.ROOT)


def test_the_rendered_set() -> None:
    assert sorted(RENDERED) == [
        "compose/compose.demo.yaml",
        "compose/compose.w4a16-tp2.yaml",
        "compose/compose.w4a8-tp2-baremetal.yaml",
        "compose/compose.w4a8-tp4.yaml",
        "compose/compose.yaml",
        "compose/edge.yaml",
        "compose/gpu-metrics.yaml",
        "compose/monitoring.yaml",
        "compose/monitoring/dashboard.json",
        "docker/init/Dockerfile",
        "docker/serve-cpu/Dockerfile",
        "docker/serve/Dockerfile",
        *(f"docker/serve/Dockerfile.v{release}" for release in ("0.23.0", "0.26.0", "0.28.0", "0.30.0", "0.33.0")),
    ]


@pytest.mark.parametrize("path", sorted(RENDERED))
def test_one_changed_byte_is_noticed(tmp_path: Path, path: str) -> None:
    render.write(RENDERED, tmp_path)
    render.check(RENDERED, tmp_path)
    content = (tmp_path / path).read_bytes()
    middle = len(content) // 2
    (tmp_path / path).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(StaleError) as caught:
        render.check(RENDERED, tmp_path)
    assert str(caught.value) == f"rendered files are stale:\n  {path}: not as rendered\n  next: run: dsv4 render"
    assert caught.value.exit_code == 1


def test_orphans_and_missing_files_are_noticed_and_mended(tmp_path: Path) -> None:
    render.write(RENDERED, tmp_path)
    (tmp_path / "compose/compose.old.yaml").write_text("name: old\n")
    (tmp_path / "compose/monitoring/other.json").write_text("{}\n")
    (tmp_path / "compose/compose.yaml").unlink()
    with pytest.raises(StaleError) as caught:
        render.check(RENDERED, tmp_path)
    assert caught.value.message == (
        "rendered files are stale:\n"
        "  compose/compose.yaml: not as rendered\n"
        "  compose/compose.old.yaml: nothing renders it\n"
        "  compose/monitoring/other.json: nothing renders it"
    )
    orphans = ["compose/compose.old.yaml", "compose/monitoring/other.json"]
    assert render.write(RENDERED, tmp_path) == ["compose/compose.yaml", *orphans]
    render.check(RENDERED, tmp_path)


def services(path: str) -> dict[str, Any]:
    # Compose's own tags say how files are laid over each other.
    return dict(yaml.safe_load(re.sub(r"!(reset|override) ", "", RENDERED[path]))["services"])


@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_every_one_shot_is_adopted(path: str) -> None:
    """`up --wait` fails on a one-shot that exits 0 unless a running service waits for it (docker/compose#10596)."""
    found = services(path)
    one_shots = {name for name, service in found.items() if service["restart"] == "no"}
    adopted = {
        name
        for service in found.values()
        for name, needs in service.get("depends_on", {}).items()
        if needs["condition"] == "service_completed_successfully"
    }
    assert one_shots == adopted == {"prepare", "materialize"}


@pytest.mark.parametrize("path", [path for path in COMPOSE_FILES if "demo" not in path])
def test_gpus_are_reserved_the_way_every_compose_understands(path: str) -> None:
    serve = services(path)["serve"]
    assert "gpus" not in serve
    assert serve["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 4 if "tp4" in path else 2, "capabilities": ["gpu"]}
    ]


@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_weights_are_read_only_where_they_are_served_and_no_volume(path: str) -> None:
    found = services(path)
    weights = {
        name: [v for v in service.get("volumes", []) if v["target"] == "/weights"] for name, service in found.items()
    }
    assert [(v["type"], v.get("read_only", False)) for v in weights["materialize"]] == [("bind", False)]
    assert [(v["type"], v.get("read_only", False)) for v in weights["serve"]] == [("bind", True)]
    assert weights["serve"][0]["source"] == weights["materialize"][0]["source"]


@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_docker_waits_longer_than_the_engine_drains(path: str) -> None:
    serve = services(path)["serve"]
    drain = int(serve["command"][serve["command"].index("--shutdown-timeout") + 1])
    assert int(serve["stop_grace_period"].removesuffix("s")) > drain
    assert serve["healthcheck"]["start_interval"] == "1s"
    assert serve["healthcheck"]["start_period"] == f"{serve['environment']['VLLM_ENGINE_READY_TIMEOUT_S']}s"


@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_ports_stay_on_loopback(path: str) -> None:
    published = [port for service in services(path).values() for port in service.get("ports", [])]
    assert published == ["${DSV4_BIND:-127.0.0.1}:${DSV4_PORT:-8000}:8000"]


def test_monitoring_stays_on_loopback_and_is_nobodys_root() -> None:
    found = services(MONITORING)
    published = {name: service["ports"] for name, service in found.items()}
    assert published == {
        "prometheus": ["127.0.0.1:${DSV4_PROMETHEUS_PORT:-9090}:9090"],
        "grafana": ["127.0.0.1:${DSV4_GRAFANA_PORT:-3000}:3000"],
    }
    for service in found.values():
        assert not service["user"].startswith("0")
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(volume.get("read_only") or volume["type"] == "volume" for volume in service["volumes"])


def test_gpus_are_watched_by_one_that_nobody_reaches_from_outside() -> None:
    exporter = services(GPU_METRICS)["dcgm-exporter"]
    assert ("ports" in exporter, exporter["networks"], exporter["cap_add"]) == (False, ["inside"], ["SYS_ADMIN"])


def test_a_dollar_sign_is_kept_from_compose() -> None:
    assert render.literal("a$b") == '"a$$b"'
    assert render.literal("${DSV4_PORT:-1}") == '"${DSV4_PORT:-1}"'


def test_allowed_patterns_reach_the_container_as_they_are() -> None:
    known = profile.load("w4a8-tp2")
    plan = make_plan(PINS, replace(known, weights=replace(known.weights, allow=("*.py", "[a-c]?.txt"))), LOCK)
    command = yaml.safe_load(render.render_plan(plan)["compose/compose.yaml"])["services"]["materialize"]["command"]
    allowed = command[command.index("--allow") : command.index("--for-release")]
    assert allowed == ["--allow", "*.py", "--allow", "[a-c]?.txt"]


def test_a_typo_in_a_template_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    (tmp_path / "x.j2").write_text("ENV A={{ typo }}\n")
    with pytest.raises(ConfigError, match=r"x\.j2 cannot be rendered: 'typo' is undefined"):
        render._fill("x.j2", {})


def test_a_project_of_its_own_needs_nothing_else(tmp_path: Path) -> None:
    plan = make_plan(PINS, profile.load("w4a8-tp4"), LOCK)
    render.write_project(render.render_plan(plan), LOCK, tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"compose/compose.yaml", "docker/init/Dockerfile", "docker/serve/Dockerfile", "dsv4.lock"} <= files
    assert {"docker/serve/entrypoint.sh", "deploy/dsv4_stack/guest/__main__.py"} <= files
    assert {"compose/monitoring/alerts.yml", "compose/monitoring/dashboard.json"} <= files
    assert {"compose/gpu-metrics/targets.yml", "compose/edge/Caddyfile"} <= files
    assert not [name for name in files if "profiles" in name or "pyc" in name]
    assert "dsv4-w4a8-tp4" in (tmp_path / "compose/compose.yaml").read_text()


def test_a_folder_that_is_not_from_here_is_left_alone(tmp_path: Path) -> None:
    plan = make_plan(PINS, profile.load("w4a8-tp4"), LOCK)
    mine = tmp_path / "compose/mine.yaml"
    mine.parent.mkdir()
    mine.write_text("name: mine\n")
    with pytest.raises(UsageError) as caught:
        render.write_project(render.render_plan(plan), LOCK, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has a docker/, compose/ or deploy/ that is not from here\n  next: name an empty folder"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["compose", "mine.yaml"]
    with pytest.raises(UsageError):
        render.write_project(render.render_plan(plan), LOCK, assets.ROOT)


def test_a_project_is_brought_up_to_date_without_touching_what_is_right(tmp_path: Path) -> None:
    plan = make_plan(PINS, profile.load("w4a8-tp4"), LOCK)
    render.write_project(render.render_plan(plan), LOCK, tmp_path)
    changed, extra = tmp_path / "compose/compose.yaml", tmp_path / "compose/old.yaml"
    kept = tmp_path / "docker/serve/entrypoint.sh"
    before = kept.stat()
    text = changed.read_text()
    changed.write_text("name: other\n")
    extra.write_text("name: old\n")
    render.write_project(render.render_plan(plan), LOCK, tmp_path)
    after = kept.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert changed.read_text() == text
    assert not extra.exists()


def test_whatever_the_umask_a_container_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        render.write_project(
            render.render_plan(make_plan(PINS, profile.load("demo"), LOCK)), LOCK, tmp_path / "project"
        )
    finally:
        os.umask(before)
    written = list((tmp_path / "project").rglob("*"))
    # As an earlier release may have left it.
    (tmp_path / "project/compose/monitoring/prometheus.yml").chmod(0o600)
    (tmp_path / "project/compose/edge").chmod(0o700)
    render.write_project(render.render_plan(make_plan(PINS, profile.load("demo"), LOCK)), LOCK, tmp_path / "project")
    assert {path.stat().st_mode & 0o777 for path in written if path.is_file()} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in written if path.is_dir()} == {0o755}


def has_compose() -> bool:
    """The command alone: no engine is asked."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="needs the docker command and its compose plugin (no engine)")
@pytest.mark.parametrize("path", COMPOSE_FILES)
def test_compose_accepts_every_rendered_file_and_what_is_laid_over_it(path: str) -> None:
    # GPUs are watched for monitoring alone. What holds over one stack holds over the others, which differ in values.
    each = ([EDGE], [MONITORING], [MONITORING, EDGE], [MONITORING, GPU_METRICS])
    for files in ([path, *overlays] for overlays in ([], *(each if path == COMPOSE_FILES[0] else ()), OVERLAYS)):
        words = [word for file in files for word in ("-f", str(assets.ROOT / file))]
        command = ["docker", "compose", *words, "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
