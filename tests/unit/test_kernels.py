"""`dsv4 warm --export` and `--import` around Docker, with a docker command that says what a test wants."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dsv4_stack import assets, engine, kernels, lock, pins, profile, stack, volumes
from dsv4_stack.errors import Dsv4Error, IntegrityError, NotFoundError, UsageError
from dsv4_stack.plan import Plan, make_plan
from dsv4_stack.volumes import User

VOLUME = "dsv4-cache-cpu-cpu"


@pytest.fixture
def plan() -> Plan:
    return make_plan(pins.load(assets.PINS), profile.load("demo"), lock.Lock())


@dataclass
class Docker:
    """`command` is a script that writes its words down; the volumes are those of an engine that is not there."""

    command: Path
    volumes: set[str] = field(default_factory=set)
    users: list[User] = field(default_factory=list)
    built: list[str] = field(default_factory=list)

    def ends(self, code: int, says: str = "") -> None:
        words = self.command.with_name("words")
        self.command.write_text(f"#!/bin/sh\necho \"$@\" >'{words}'\nprintf '%s' '{says}' >&2\nexit {code}\n")

    @property
    def words(self) -> str:
        return self.command.with_name("words").read_text()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker(tmp_path / "bin/docker")
    found.command.parent.mkdir()
    found.ends(0)
    found.command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{found.command.parent}:{os.environ['PATH']}")
    for name in ("DSV4_UID", "DSV4_GID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(volumes, "users", lambda volume: found.users if volume == VOLUME else [])
    monkeypatch.setattr(volumes, "names", lambda: found.volumes)
    monkeypatch.setattr(volumes, "make", lambda name, *_: found.volumes.add(name))
    monkeypatch.setattr(volumes, "remove", found.volumes.discard)
    monkeypatch.setattr(stack, "build_init", lambda plan, _: found.built.append(plan.init.reference))
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.tar.gz"
    path.write_bytes(b"")
    return path


def import_from(plan: Plan, file: Path) -> None:
    kernels.import_from(plan, file, lambda _: None)


def test_an_import_builds_what_it_runs_and_pulls_nothing(plan: Plan, docker: Docker, archive: Path) -> None:
    import_from(plan, archive)
    assert docker.built == [plan.init.reference]
    assert " --pull never " in docker.words
    command = f"{plan.init.reference} caches unpack /cache --label {plan.cache_label} --uid 10001 --gid 10001"
    assert docker.words.endswith(f" {command}\n")
    assert docker.volumes == {VOLUME}


def test_an_import_is_for_the_user_that_the_engine_will_run_as(
    plan: Plan, docker: Docker, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSV4_UID", "1234")
    monkeypatch.setenv("DSV4_GID", "")
    import_from(plan, archive)
    assert docker.words.endswith(" --uid 1234 --gid 10001\n")


def test_a_volume_that_was_made_for_an_import_goes_with_its_failure(plan: Plan, docker: Docker, archive: Path) -> None:
    docker.ends(6, "error: this is no archive\n  next: export it again\n")
    with pytest.raises(IntegrityError, match="this is no archive\n  next: export it again"):
        import_from(plan, archive)
    assert docker.volumes == set()
    docker.volumes.add(VOLUME)
    with pytest.raises(IntegrityError):
        import_from(plan, archive)
    assert docker.volumes == {VOLUME}


def test_a_container_that_was_killed_without_a_word_is_told(plan: Plan, docker: Docker, archive: Path) -> None:
    docker.ends(137)
    with pytest.raises(Dsv4Error, match=r"^`caches` ended with exit code 137$"):
        import_from(plan, archive)


OURS = User(container="dsv4-demo-serve-1", project="dsv4-demo", status="running")
FOREIGN = User(container="mine", project="", status="paused")


@pytest.mark.parametrize(
    ("users", "told"),
    [
        ([OURS], "dsv4-demo-serve-1 (running)\n  next: run: dsv4 down --profile demo"),
        ([FOREIGN], "mine (paused)\n  next: run: docker stop mine"),
        (
            [OURS, FOREIGN],
            "dsv4-demo-serve-1 (running), mine (paused)\n  next: run: docker stop mine && dsv4 down --profile demo",
        ),
    ],
)
def test_a_volume_in_use_is_neither_read_nor_written(
    plan: Plan, docker: Docker, archive: Path, users: list[User], told: str
) -> None:
    docker.volumes.add(VOLUME)
    docker.users = users
    for verb in (kernels.import_from, kernels.export_to):
        with pytest.raises(UsageError) as caught:
            verb(plan, archive, lambda _: None)
        assert str(caught.value) == f"the volume {VOLUME} is used by {told}"
    assert docker.built == []
    assert archive.read_bytes() == b""


def test_an_archive_that_is_not_there_costs_no_build(plan: Plan, docker: Docker, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        import_from(plan, tmp_path / "none")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        import_from(plan, tmp_path)
    assert (docker.built, docker.volumes) == ([], set())


def test_only_the_init_image_is_built_for_it(plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    built: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "compose_build", lambda _files, *services, env: built.append(services))  # noqa: ARG005
    monkeypatch.setattr(engine, "image", lambda _: None)
    said: list[str] = []
    stack.build_init(plan, said.append)
    assert (built, said) == ([("materialize",)], [f"build: {plan.init.reference}"])
    monkeypatch.setattr(engine, "image", lambda _: {"Config": {"Labels": {"io.dsv4.base": stack.base_of(plan.init)}}})
    stack.build_init(plan, said.append)
    assert len(built) == 1
