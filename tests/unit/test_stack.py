"""What `up` and `build` do around Docker, with a docker command and containers that say what a test wants."""

import os
from pathlib import Path

import pytest
from helpers.screen import terminal
from helpers.states import state

from dsv4_stack import assets, doctor, engine, errors, lock, pins, profile, project, stack
from dsv4_stack.plan import Plan, make_plan
from dsv4_stack.verbs import common


@pytest.fixture
def plan() -> Plan:
    return make_plan(pins.load(assets.PINS), profile.load("demo"), lock.Lock())


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker command that runs this script."""
    script = tmp_path / "bin/docker"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


@pytest.mark.parametrize(
    ("code", "kind"), [(11, errors.PatchError), (6, errors.IntegrityError), (4, errors.NotFoundError)]
)
def test_a_build_ends_with_the_error_of_its_step(
    docker: Path, capfd: pytest.CaptureFixture[str], code: int, kind: type[errors.Dsv4Error]
) -> None:
    line = f"ERROR: process did not complete successfully: exit code: {code}"
    docker.write_text(f"#!/bin/sh\necho '{line}'\nexit 17\n")
    with pytest.raises(kind) as caught:
        engine.compose_build([Path("compose.yaml")], "serve", env={})
    assert type(caught.value) is kind
    assert caught.value.message == f"a build step ended with exit code {code}; what it said stands above"
    assert capfd.readouterr().err == f"{line}\n"


def test_a_build_that_fails_otherwise_is_unexpected(docker: Path) -> None:
    docker.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(errors.Dsv4Error) as caught:
        engine.compose_build([Path("compose.yaml")], "serve", env={})
    assert (type(caught.value), caught.value.exit_code) == (errors.Dsv4Error, 1)


def test_a_build_that_succeeds_raises_nothing(docker: Path) -> None:
    docker.write_text("#!/bin/sh\necho 'a patch says exit code: 11 here'\nexit 0\n")
    engine.compose_build([Path("compose.yaml")], "serve", env={})


def test_paths_are_absolute_for_compose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DSV4_WHEELS", "DSV4_EXTRA_CA", "HF_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DSV4_EXTRA_CA", "ca.pem")
    assert project.environment({"DSV4_WEIGHTS_DIR": "weights", "DSV4_PORT": "9"}) == {
        "DSV4_WEIGHTS_DIR": f"{tmp_path}/weights",
        "DSV4_EXTRA_CA": f"{tmp_path}/ca.pem",
        "DSV4_PORT": "9",
    }


def follow(plan: Plan, monkeypatch: pytest.MonkeyPatch, *found: engine.State, log: tuple[str, ...] = ()) -> None:
    states = iter(found)
    monkeypatch.setattr(engine, "states", lambda _: {"serve": next(states)})
    monkeypatch.setattr(engine, "logs", lambda *_, **__: iter(log))
    monkeypatch.setattr(stack, "POLL_S", 0)
    stack._wait_until_healthy(plan, lambda _: None)


def test_restarts_of_an_earlier_life_do_not_count(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = state(status="restarting", exit_code=6, health="unhealthy")
    follow(plan, monkeypatch, waiting, waiting, state(), state(health="healthy"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [(6, errors.IntegrityError), (11, errors.PatchError), (1, errors.Dsv4Error), (0, errors.NotReadyError)],
)
def test_an_engine_that_stops_is_the_error_of_its_exit_code(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[errors.Dsv4Error]
) -> None:
    stopped = state(status="restarting", exit_code=code, health="unhealthy", restarts=4)
    with pytest.raises(kind) as caught:
        follow(plan, monkeypatch, state(), stopped, log=("error: why",))
    assert type(caught.value) is kind
    assert str(caught.value) == (
        "the engine stopped; its last words:\n  error: why\n  next: run: dsv4 logs --profile demo serve"
    )


def test_an_engine_that_answers_wrongly_is_not_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.NotReadyError) as caught:
        follow(plan, monkeypatch, state(), state(says="wrong: 'abc' is answered with '!!!'"))
    assert str(caught.value) == (
        "the engine answers wrongly: 'abc' is answered with '!!!'\n  next: run: dsv4 logs --profile demo serve"
    )


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HF_TOKEN_FILE"])
def test_a_token_is_handed_over_as_a_file_that_nobody_else_comes_near(
    plan: Plan, docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mine").write_text("hf_canary\n")
    monkeypatch.setenv(variable, "hf_canary" if variable == "HF_TOKEN" else str(tmp_path / "mine"))
    seen = f"{tmp_path}/seen"
    docker.write_text(
        f'#!/bin/sh\ncat "$HF_TOKEN_FILE" >{seen}; stat -c %a "$HF_TOKEN_FILE" "$(dirname "$HF_TOKEN_FILE")" >>{seen}\n'
        f'echo "$@" >>{seen}; echo "$HF_TOKEN_FILE" >{tmp_path}/path\n'
    )
    monkeypatch.setattr(engine, "states", lambda _: {"serve": state(health="healthy")})
    monkeypatch.setattr(stack, "POLL_S", 0.01)
    stack.up(plan, (Path("compose.yaml"),), {}, lambda _: None)
    assert Path(seen).read_text() == (
        "hf_canary444\n700\ncompose -f compose.yaml --progress plain up --detach --no-build --remove-orphans\n"
    )
    assert not Path((tmp_path / "path").read_text().strip()).exists()


MATERIALIZE_LOG = (
    "materialize: 2 files to fetch, 5.0 GiB; 0 are there",
    "materialize: 0/2 files, 1.0/5.0 GiB (20 %), 102 MiB/s, 40s left, 512.0 MiB reused",
    "materialize: 0/2 files, 2.0/5.0 GiB (40 %), 102 MiB/s, 30s left, 512.0 MiB reused",
    "materialize: b, 1.0 GiB",
    "materialize: 1/2 files, 3.0/5.0 GiB (60 %), stalled for 20s, 512.0 MiB reused",
    "error: no progress for 600 s",
    "  next: check the network",
)


def follow_materialize(plan: Plan, monkeypatch: pytest.MonkeyPatch, say: stack.Say) -> None:
    """Over a container that was there before, and then started again with this log."""
    found = iter([state(), state(status="created", started_at=""), state(started_at="2026-01-02T00:00:00Z")])
    monkeypatch.setattr(engine, "states", lambda _: {"materialize": next(found)})
    monkeypatch.setattr(engine, "logs", lambda state, **_: iter([*MATERIALIZE_LOG, state.started_at]))
    monkeypatch.setattr(stack, "POLL_S", 0)
    stack._follow_materialize(plan, lambda: None, stack._live(say))


def test_what_materialize_says_is_passed_on_live(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    follow_materialize(plan, monkeypatch, said.append)
    others = ["error: no progress for 600 s", "  next: check the network", "2026-01-02T00:00:00Z"]
    assert said == [*MATERIALIZE_LOG[:5], *(f"materialize: {line}" for line in others)]


def test_on_a_terminal_progress_takes_the_place_of_progress(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminal(70) as window:
        monkeypatch.setattr("sys.stderr", window.stream)
        follow_materialize(plan, monkeypatch, common.say)
        window.close()
        assert window.lines() == [
            "materialize: 2 files to fetch, 5.0 GiB; 0 are there",
            "materialize: 0/2 files, 2.0/5.0 GiB (40 %), 102 MiB/s, 30s left",
            "materialize: b, 1.0 GiB",
            "materialize: 1/2 files, 3.0/5.0 GiB (60 %), stalled for 20s",
            "materialize: error: no progress for 600 s",
            "materialize:   next: check the network",
            "materialize: 2026-01-02T00:00:00Z",
        ]
        assert window.cursor() == (7, 0)


def test_compose_draws_nothing_of_its_own(
    plan: Plan, docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    monkeypatch.setattr(engine, "states", lambda _: {"serve": state(health="healthy")})
    monkeypatch.setattr(stack, "POLL_S", 0.01)
    stack.up(plan, (Path("compose.yaml"),), {}, lambda _: None)
    assert (
        tmp_path / "asked"
    ).read_text() == "compose -f compose.yaml --progress plain up --detach --no-build --remove-orphans\n"


def test_shards_are_shown_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    line = "Loading safetensors checkpoint shards:  25% 1/4\rLoading safetensors checkpoint shards:  50% 2/4"
    monkeypatch.setattr(engine, "logs", lambda *_, **__: iter([line, line, "noise", "Loading weights took 86 s"]))
    stack._say_milestones(state(), said.append)
    assert said == ["serve: Loading safetensors checkpoint shards:  50% 2/4", "serve: Loading weights took 86 s"]


@pytest.mark.parametrize(
    ("published", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("::1:9000", "http://[::1]:9000"),
        ("", "http://127.0.0.1:8000"),
    ],
)
def test_the_url_is_where_the_container_publishes_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, published: str, url: str
) -> None:
    for name in ("DSV4_PORT", "DSV4_BIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(engine, "states", lambda _: {"serve": state(published=published)})
    assert stack.url(plan, {}) == url


@pytest.mark.parametrize(
    ("published", "host", "url"),
    [
        ("0.0.0.0:443", "", "https://localhost"),
        ("127.0.0.1:8443", "", "https://localhost:8443"),
        ("0.0.0.0:443", "llm.example.org", "https://llm.example.org"),
        ("", "", "https://localhost"),
    ],
)
def test_behind_the_edge_the_url_is_the_edges(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, published: str, host: str, url: str
) -> None:
    monkeypatch.setenv("DSV4_EDGE_HOST", host)
    found = {"serve": state(published=""), "edge": state(service="edge", published=published)}
    monkeypatch.setattr(engine, "states", lambda _: found)
    assert stack.url(plan, {}) == url


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "", "1.5"])
def test_a_port_is_a_number_that_there_is(text: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        doctor.port_number(text)
    assert caught.value.message == f"the port should be a number from 1 to 65535, not {text!r}"


def test_every_exit_code_has_its_error() -> None:
    assert [errors.of_exit_code(code).__name__ for code in (0, 1, 2, 11, 137)] == [
        "Dsv4Error",
        "Dsv4Error",
        "UsageError",
        "PatchError",
        "Dsv4Error",
    ]


@pytest.mark.parametrize(
    ("text", "fact", "step"),
    [
        (
            "error: the caches are of another engine\n  next: run: dsv4 warm\n",
            "the caches are of another engine",
            "run: dsv4 warm",
        ),
        ("error: nothing helps\n", "nothing helps", ""),
        ("", "`caches` ended with exit code 6", ""),
    ],
)
def test_an_error_of_the_guests_is_one_here_too(text: str, fact: str, step: str) -> None:
    error = errors.as_printed("caches", 6, text)
    assert (type(error), error.message, error.next_step) == (errors.IntegrityError, fact, step)
