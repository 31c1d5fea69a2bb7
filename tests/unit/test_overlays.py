"""What is laid over a stack stays there until it is taken away by name."""

from pathlib import Path

import pytest

from dsv4_stack import __main__ as cli
from dsv4_stack import assets, lock, pins, profile, project, stack, volumes
from dsv4_stack.doctor import examination
from dsv4_stack.plan import Plan, make_plan
from dsv4_stack.verbs import up as up_verb
from dsv4_stack.verbs.common import plan_of


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, state_home: Path) -> list[tuple[str, ...]]:  # noqa: ARG001
    """The compose files of each start, none of which touches an engine."""
    starts: list[tuple[str, ...]] = []

    def up(_plan: Plan, files: project.Files, *_: object) -> None:
        starts.append(tuple(path.name for path in files))

    monkeypatch.setattr(stack, "build", lambda *_: None)
    monkeypatch.setattr(stack, "up", up)
    monkeypatch.setattr(stack, "url", lambda *_: "http://127.0.0.1:8000")
    monkeypatch.setattr(stack, "dashboard", lambda _: "")
    return starts


def up(*words: str) -> None:
    assert cli.main(["up", "--profile", "demo", "--skip-doctor", "--no-verify", *words]) == 0


def test_they_stay_at_the_next_start(started: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    up()
    up("--edge")
    assert "edge" not in capsys.readouterr().err
    up()
    assert "up: edge stays; without it: --no-edge\n" in capsys.readouterr().err
    up("--monitoring")
    capsys.readouterr()
    up("--no-edge")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("up: ") and "ready" not in line]
    assert said == ["up: monitoring stays; without it: --no-monitoring", "up: edge is taken away"]
    up("--no-monitoring")
    up()
    assert started == [
        ("compose.yaml",),
        ("compose.yaml", "edge.yaml"),
        ("compose.yaml", "edge.yaml"),
        ("compose.yaml", "monitoring.yaml", "edge.yaml"),
        ("compose.yaml", "monitoring.yaml"),
        ("compose.yaml",),
        ("compose.yaml",),
    ]


def test_every_verb_sees_them_and_none_but_up_changes_them(started: list[tuple[str, ...]]) -> None:
    up("--edge")
    demo = make_plan(pins.load(assets.PINS), profile.load("demo"), lock.Lock())
    assert [path.name for path in project.prepare(demo)] == ["compose.yaml"]
    assert tuple(path.name for path in project.prepared(demo)) == started[-1]
    assert project.overlays(demo) == ("edge",)


def test_caches_are_those_of_the_engine_that_was_started(
    started: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"dsv4-cache-v0.30.0-sm90"}
    monkeypatch.setattr(stack, "down", lambda _files, *, volumes: started.append((str(volumes),)))
    monkeypatch.setattr(volumes, "remove", lambda name: name in there and there.remove(name) is None)
    command = ["up", "--skip-doctor", "--no-verify", "--profile", "w4a8-tp2-baremetal", "--engine", "v0.30.0"]
    monkeypatch.setattr(up_verb, "locked_plan", plan_of)
    assert cli.main(command) == 0
    # GPUs are watched too, and have no flag of their own.
    assert cli.main([*command, "--monitoring"]) == 0
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "gpu-metrics stays" not in capsys.readouterr().err
    for said in ("is deleted", "there is no volume"):
        assert cli.main(["down", "--caches", "--profile", "w4a8-tp2-baremetal"]) == 0
        assert said in capsys.readouterr().err
    assert not there


def test_doctor_looks_at_what_will_be_there(started: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    up("--edge")
    seen = []
    monkeypatch.setattr(examination, "examine", lambda _plan, _overrides, overlays: seen.append(overlays) or [])
    monkeypatch.setattr("dsv4_stack.doctor.examine", examination.examine)
    for words in ([], ["--no-edge"], ["--monitoring"]):
        assert cli.main(["doctor", "--profile", "demo", *words]) == 0
    assert seen == [("edge",), (), ("monitoring", "edge")]
    assert len(started) == 1
