"""What the watch tells everybody else: the door's file, the state file, /ready and /metrics."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from dsv4_stack.errors import NotReadyError
from dsv4_stack.guest import health
from dsv4_stack.guest.serving import notice
from dsv4_stack.guest.serving.notice import Board, Notice
from dsv4_stack.guest.serving.watch import State

READY = Notice(
    state=State.READY,
    reason="'abc' is answered with 'def'",
    started_at=1_800_000_000.25,
    ready_after_s=83.5,
    quiet_s=1.5,
    in_flight=2,
    answers=4,
    wrong_answers=1,
    hangs=0,
)
METRICS = """\
# HELP dsv4_state 1 for the state that the engine is in
# TYPE dsv4_state gauge
dsv4_state{state="starting"} 0
dsv4_state{state="ready"} 1
dsv4_state{state="wrong"} 0
dsv4_state{state="hung"} 0
dsv4_state{state="stopping"} 0
# HELP dsv4_start_time_seconds when the engine was started, in seconds since 1970
# TYPE dsv4_start_time_seconds gauge
dsv4_start_time_seconds 1800000000.25
# HELP dsv4_ready_after_seconds from the start to the golden answer
# TYPE dsv4_ready_after_seconds gauge
dsv4_ready_after_seconds 83.5
# HELP dsv4_quiet_seconds for how long nothing has moved while requests run
# TYPE dsv4_quiet_seconds gauge
dsv4_quiet_seconds 1.5
# HELP dsv4_in_flight_requests requests taken and not yet answered to their end
# TYPE dsv4_in_flight_requests gauge
dsv4_in_flight_requests 2
# HELP dsv4_answers_total answers to the golden question
# TYPE dsv4_answers_total counter
dsv4_answers_total 4
# HELP dsv4_wrong_answers_total answers to the golden question that were wrong
# TYPE dsv4_wrong_answers_total counter
dsv4_wrong_answers_total 1
# HELP dsv4_hangs_total times that requests ran and nothing moved
# TYPE dsv4_hangs_total counter
dsv4_hangs_total 0
# HELP dsv4_warnings what else is not as it was at the start
# TYPE dsv4_warnings gauge
dsv4_warnings 0
# HELP dsv4_gpus GPUs that the engine runs on; 0 on CPUs
# TYPE dsv4_gpus gauge
dsv4_gpus 0
"""


def test_the_door_is_open_only_while_it_is_ready(tmp_path: Path) -> None:
    board = Board(tmp_path)
    seen = {}
    for state in State:
        board.put(replace(READY, state=state, reason=f"because {state}"))
        seen[str(state)] = board.door.read_text()
    assert seen == {
        "starting": "starting: because starting",
        "ready": "",
        "wrong": "wrong: because wrong",
        "hung": "hung: because hung",
        "stopping": "stopping: because stopping",
    }


def test_the_doors_file_is_left_alone_while_nothing_changes(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.put(READY)
    before = board.door.stat()
    board.put(replace(READY, quiet_s=3))
    assert board.door.stat().st_ino == before.st_ino


def test_the_state_file_holds_it_all(tmp_path: Path) -> None:
    Board(tmp_path).put(READY)
    assert json.loads((tmp_path / "state.json").read_text()) == {**asdict(READY), "warnings": []}


def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.metrics == ""
    board.put(READY)
    assert board.metrics == METRICS
    board.put(replace(READY, ready_after_s=None, warnings=("x",)))
    assert "dsv4_ready_after_seconds" not in board.metrics
    assert "dsv4_warnings 1\n" in board.metrics


def test_how_many_gpus_there_are_is_the_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSV4_GPUS", "2")
    board = Board(tmp_path)
    board.put(READY)
    assert board.metrics.endswith("\ndsv4_gpus 2\n")


def test_it_is_told_over_http_and_the_health_check_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path)
    server = notice.serve(board, 0)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with pytest.raises(NotReadyError) as caught:
            health.run(_args(f"{url}/ready"))
        assert str(caught.value) == "starting: the watch has not looked yet"
        board.put(replace(READY, state=State.WRONG))
        with pytest.raises(NotReadyError) as caught:
            health.run(_args(f"{url}/ready"))
        assert str(caught.value) == "wrong: 'abc' is answered with 'def'"
        board.put(READY)
        health.run(_args(f"{url}/ready"))
        assert capsys.readouterr().out == "ready: 'abc' is answered with 'def'\n"
        with urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310
            assert answer.read().decode() == METRICS
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{url}/", timeout=5)  # noqa: S310
    finally:
        server.shutdown()
        server.server_close()


def _args(url: str) -> object:
    from argparse import Namespace

    return Namespace(url=url)


def test_a_health_check_without_a_watch_fails() -> None:
    with pytest.raises(NotReadyError, match=r"http://127\.0\.0\.1:9/ready does not answer: "):
        health.ask("http://127.0.0.1:9/ready")
