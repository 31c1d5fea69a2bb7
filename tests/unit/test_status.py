"""`dsv4 status` over containers that are what a test wants: its table, its figures, its JSON, and looking on."""

import json
from dataclasses import replace
from typing import Any

import pytest
from helpers.screen import terminal
from helpers.states import state
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack import __main__ as cli
from dsv4_stack import engine, errors
from dsv4_stack.verbs import status

SERVE = state(
    container="c1",
    image="dsv4-stack/serve-cpu:cpu-1",
    health="healthy",
    says="ready",
    started_at="2026-11-25T12:00:00Z",
    restarts=1,
    published="127.0.0.1:8000",
    reserved="127.0.0.1:8000",
)
HUB = replace(SERVE, service="hub", image="dsv4-stack/init:1", restarts=0, published="", reserved="")
NOTICE = {"state": "ready", "reason": "'abc' is answered with 'def'", "started_at": 1000.0, "in_flight": 0}
TABLE = """\
hub           running (healthy)        dsv4-stack/init:1
serve         running (healthy)        dsv4-stack/serve-cpu:cpu-1
"""


def figures(at: float = 1010.0, generated: float = 20.0) -> dict[str, Any]:
    """As the guest prints them."""
    totals = {"vllm:generation_tokens_total": generated}
    return {"at": at, "gpus": 0, "notice": NOTICE, "totals": totals, "histograms": {}, "devices": []}


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, engine.State]:
    found = {"serve": SERVE, "hub": HUB}
    monkeypatch.setattr(engine, "states", lambda _: found)
    return found


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the container answers, one look after the other; the last one again and again."""
    found = [figures()]

    def ask(_state: engine.State, verb: str) -> Any:  # noqa: ANN401
        assert verb == "figures"
        answer = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(engine, "ask_guest", ask)
    return found


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No time passes, and the third nap is ended by Ctrl-C."""
    taken: list[float] = []

    def sleep(seconds: float) -> None:
        taken.append(seconds)
        if len(taken) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    return taken


def run(*words: str) -> int:
    return cli.main(["status", "--profile", "demo", *words])


@pytest.mark.usefixtures("states", "answers")
def test_the_table_comes_first_and_the_figures_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out == TABLE + (
        "\n"
        "State                  ready: 'abc' is answered with 'def'\n"
        "Throughput             generated 2.0 tok/s\n"
        "Requests               in flight 0\n"
        "Restarts               1\n"
        "                       since the start, 10s\n"
    )


@pytest.mark.usefixtures("states", "answers")
def test_json_has_every_container_and_beside_them_what_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    hub, serve = json.loads(capsys.readouterr().out)
    assert hub == vars(HUB)
    assert serve.pop("watch") == NOTICE
    assert serve.pop("figures")["throughput"] == {"generated": 2.0, "prompts": None}
    assert serve == vars(SERVE)


@pytest.mark.usefixtures("states")
@pytest.mark.parametrize(
    "answer",
    [
        errors.UsageError("there is no verb 'figures'"),
        errors.NotFoundError("serve does not run"),
        json.JSONDecodeError("odd", "", 0),
        {},
    ],
)
def test_a_container_that_has_no_figures_has_a_state_all_the_same(
    answers: list[Any], answer: object, capsys: pytest.CaptureFixture[str]
) -> None:
    answers[:] = [answer]
    assert run() == 0
    assert capsys.readouterr().out == TABLE
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == [vars(HUB), vars(SERVE)]


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize(
    ("serve", "found", "shows_state"),
    [
        (None, "not there", False),
        (replace(SERVE, health="starting"), "running (starting)", True),
        (replace(SERVE, status="exited", health="", exit_code=6), "exited (6)", False),
    ],
)
def test_what_does_not_serve_is_exit_code_10(
    states: dict[str, engine.State],
    serve: engine.State | None,
    found: str,
    shows_state: bool,  # noqa: FBT001
    capsys: pytest.CaptureFixture[str],
) -> None:
    del states["serve"]
    states |= {"serve": serve} if serve else {}
    assert run() == 10
    said = capsys.readouterr()
    assert said.err == f"error: dsv4-demo: serve is {found}\n  next: run: dsv4 up --profile demo\n"
    assert ("State  " in said.out) == shows_state


@pytest.mark.usefixtures("answers")
def test_nothing_runs(states: dict[str, engine.State], capsys: pytest.CaptureFixture[str]) -> None:
    states.clear()
    assert run() == 10
    assert capsys.readouterr().out == "nothing runs\n"
    assert run("--json") == 10
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.usefixtures("states")
def test_looking_on_prints_a_line_for_each_look_with_what_was_between(
    answers: list[Any], naps: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    answers[:] = [figures(), figures(at=1012.0, generated=120.0), errors.NotFoundError("serve does not run")]
    assert run("--watch") == 0
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "ready; Throughput generated 2.0 tok/s; Requests in flight 0; Restarts 1; since the start, 10s",
        "ready; Throughput generated 50 tok/s; Requests in flight 0; Restarts 1; within the last 2s",
        "serve is running (healthy)",
    ]
    assert all(1.5 < nap <= 2.0 for nap in naps)


@pytest.mark.usefixtures("states", "naps")
def test_looking_on_for_programs_is_a_document_for_each_look(
    answers: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    answers[:] = [figures(), figures(at=1012.0, generated=120.0)]
    assert run("--watch", "0.5", "--json") == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [look[1]["figures"]["throughput"]["generated"] for look in looks] == [2.0, 50.0, None]


@pytest.mark.usefixtures("states", "naps")
def test_looking_on_at_a_terminal_draws_over_what_was_there(
    answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    answers[:] = [figures(), figures(at=1012.0, generated=120.0), errors.NotFoundError("serve does not run")]
    with terminal(columns=80, rows=24) as opened:
        monkeypatch.setattr(status.sys, "stdout", opened.stream)
        assert run("--watch") == 0
        opened.close()
        assert opened.written.count("50 tok/s") == 1
        assert opened.lines() == [line.rstrip() for line in TABLE.splitlines()]


@pytest.mark.parametrize("text", ["0", "-1", "x", "nan", "1e9"])
def test_seconds_are_seconds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(f"--watch={text}")
    assert "argument --watch: invalid" in capsys.readouterr().err


@given(st.lists(st.text(), max_size=40), st.integers(1, 200), st.integers(1, 60))
def test_lines_fit_their_terminal(lines: list[str], columns: int, rows: int) -> None:
    fitted = status.fitted(lines, columns, rows)
    assert len(fitted) <= max(rows - 1, 0)
    assert all(len(line) < columns and line.isascii() and (line.isprintable() or not line) for line in fitted)
