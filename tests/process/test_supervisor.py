"""The supervisor over the engine's stand-in: every claim about readiness, liveness and the end, with real processes."""

import json
import os
import re
import signal
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from helpers.wait import wait_until
from helpers.watched import Watched, watched

SOON = {"ready_s": 120.0, "stall_s": 20.0, "quiet_s": 0.5, "hang_s": 1.5, "recheck_s": 0.0, "drain_s": 10.0}
SOON |= {"grace_s": 1.0, "weights_s": 1.0}


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_nobody_is_served_before_the_golden_answer(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON, env={"STANDIN_LOAD_S": "3"}) as stack:
        stack.wait("starting: the engine is not up yet")
        stack.wait("ready: 'abc' is answered with 'def'; ")
        assert stack.complete() == (200, "def")
        assert stack.ask("GET", "/health") == (200, "")
        state = stack.state
        assert (state["state"], state["answers"], state["wrong_answers"], state["hangs"]) == ("ready", 1, 0, 0)
        assert 3 < state["ready_after_s"] < 60


def test_it_is_warmed_before_it_is_asked(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON, env={"DSV4_WARM": "[200, 3]"}) as stack:
        stack.wait("ready")
        said = [line.partition(" s")[0].rpartition(":")[0] for line in stack.said.splitlines() if ": warm: " in line]
        assert said == ["dsv4: warm: 3 tokens", "dsv4: warm: 200 tokens"]
        assert stack.said.index("warm: 200") < stack.said.index("ready: ")


def test_garbage_is_never_served_and_the_reason_is_said(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON, env={"STANDIN_FAULT": "garbage"}) as stack:
        stack.wait("wrong: 'abc' is answered with the tokens [33, 33, 33], which should begin with [100]")
        status, text = stack.complete()
        assert (status, json.loads(text)["error"]["message"]) == (503, stack.ready[1])
        assert stack.ask("GET", "/health")[0] == 503
        assert stack.ask("GET", "/v1/models")[0] == 200
        assert "dsv4: wrong answer, 3 of 3: 'abc' is answered with the tokens" in stack.said


def test_garbage_that_begins_later_is_noticed_at_the_next_question(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"recheck_s": 1.0}) as stack:
        stack.wait("ready")
        stack.fault("garbage")
        stack.wait("wrong")
        assert stack.complete()[0] == 503


def test_a_hang_is_noticed_refused_reported_and_ended(tmp_path: Path) -> None:
    # The end comes late enough that what is before it can be seen.
    with watched(tmp_path, patience=SOON | {"grace_s": 6.0}) as stack:
        stack.wait("ready")
        engine = stack.engine
        stack.fault("hang")
        users = [threading.Thread(target=stack.complete) for _ in range(5)]
        for user in users:
            # One after the other: that requests come is no sign of life.
            user.start()
            time.sleep(0.3)
        stack.wait("hung: ")
        assert stack.complete()[0] == 503
        assert stack.process.wait(60) == 10
        for user in users:
            user.join()
        assert gone(engine)
    assert "requests run, and nothing has moved for" in stack.said
    assert "dsv4: stack of python" in stack.said
    assert "in run_until_complete" in stack.said
    assert "\n  next: read the report above; the restart policy starts it again\n" in stack.said


def test_an_idle_engine_and_one_that_is_merely_slow_are_left_alone(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"hang_s": 4.0}) as stack:
        stack.wait("ready")
        stack.fault("slow")
        assert stack.complete(6) == (200, "defghi")
        time.sleep(4.5)
        assert stack.ready[0] == 200
        assert stack.state["hangs"] == 0


def test_an_api_that_answers_nothing_is_ended(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"hang_s": 60.0}) as stack:
        stack.wait("ready")
        stack.fault("stuck")
        stack.wait("hung: the API does not answer")
        assert stack.process.wait(60) == 10


def test_a_start_that_spins_is_reported_with_its_stack_and_then_ended(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"ready_s": 9.0, "stall_s": 3.0}, env={"STANDIN_LOAD": "spin"}) as stack:
        assert stack.process.wait(60) == 10
    assert re.search(r"^dsv4: the start has not moved for \d+ s\ndsv4: phase: NCCL\n", stack.said, re.MULTILINE)
    assert "in init_process_group_that_never_ends" in stack.said
    assert "dsv4: not ready after 9 s: the engine is ended\n" in stack.said


def test_a_crash_keeps_its_exit_code(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON) as stack:
        stack.wait("ready")
        stack.fault("crash")
        assert stack.process.wait(60) == 1
    assert stack.said.endswith("dsv4: the engine ended by itself with exit code 1\n")


def test_a_killed_engine_is_said_to_be_so(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON) as stack:
        stack.wait("ready")
        os.kill(stack.engine, signal.SIGKILL)
        assert stack.process.wait(60) == 137


def stream(stack: Watched, count: int) -> HTTPConnection:
    """An answer that has begun."""
    connection = HTTPConnection("127.0.0.1", stack.port, timeout=30)
    body = {"prompt": "abc", "max_tokens": count, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    return connection


def test_a_stop_waits_for_what_is_in_flight_and_lets_nothing_in(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"quiet_s": 60, "hang_s": 120}) as stack:
        stack.wait("ready")
        engine = stack.engine
        stack.fault("slow")
        connection = stream(stack, 6)
        answer = connection.getresponse()
        assert answer.read(6) == b"data: "
        stack.process.send_signal(signal.SIGTERM)
        # The first of these may be let in still, for a second.
        assert wait_until(lambda: stack.complete(1)[0] in (503, 0), timeout_s=60, interval_s=0.05)
        assert stack.process.poll() is None
        assert answer.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert stack.process.wait(60) == 0
        assert gone(engine)
    assert "dsv4: stopping: requests in flight get 10 s\n" in stack.said
    assert stack.said.endswith("dsv4: stopped: nothing was in flight\n")


def test_a_stop_waits_no_longer_than_the_limit(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"drain_s": 2.0, "quiet_s": 60, "hang_s": 120}) as stack:
        stack.wait("ready")
        stack.fault("slow")
        connection = stream(stack, 60)
        answer = connection.getresponse()
        assert answer.read(6) == b"data: "
        began = time.monotonic()
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(60) == 0
        assert 2 <= time.monotonic() - began < 30
        connection.close()
    assert stack.said.endswith("dsv4: stopped: 1 requests were cut off\n")


def test_an_engine_that_ends_while_it_is_drained_had_what_it_named_last(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON | {"quiet_s": 60, "hang_s": 120}) as stack:
        stack.wait("ready")
        stack.fault("slow")
        connection = stream(stack, 60)
        answer = connection.getresponse()
        assert answer.read(6) == b"data: "
        engine = stack.engine
        stack.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: "dsv4: stopping: " in stack.said, timeout_s=60)
        # It has looked once by then, and goes on to for the rest of 10 s.
        time.sleep(3)
        os.kill(engine, signal.SIGKILL)
        assert stack.process.wait(60) == 0
        connection.close()
    assert stack.said.endswith("dsv4: stopped: 1 requests were cut off\n")


def test_a_stop_during_the_start_is_at_once(tmp_path: Path) -> None:
    with watched(tmp_path, patience=SOON, env={"STANDIN_LOAD_S": "30"}) as stack:
        stack.wait("starting: the engine")
        engine = stack.engine
        began = time.monotonic()
        stack.process.send_signal(signal.SIGTERM)
        assert stack.process.wait(60) == 0
        assert time.monotonic() - began < 20
        assert gone(engine)


def test_weights_that_change_meanwhile_are_told_of(tmp_path: Path) -> None:
    """There is no folder even, which is as wrong as any."""
    with watched(tmp_path, patience=SOON) as stack:
        stack.wait("ready")
        assert wait_until(lambda: bool(stack.state["warnings"]), timeout_s=60)
        assert stack.ready[0] == 200
    assert stack.said.count("dsv4: the weights are no longer those that this engine was started with: ") == 1
