"""Every claim about a serving stack, in real containers, with an engine that misbehaves on demand."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from helpers import cis
from helpers.process import ROOT, run, succeed
from helpers.stacks import Stack, stack
from helpers.wait import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.network]

SMALL_CACHE = Path(__file__).parents[1] / "standin/small-cache.yaml"
SERVING = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
# What docs/serving.md gives the reasons for.
EXPLAINED = {
    "prepare": {"4.1", "5.3", "5.11", "5.26"},
    "hub": {"5.11", "5.14"},
    "materialize": {"5.10", "5.11", "5.26"},
    "serve": {"5.10", "5.11", "5.14"},
}
CANARY = "hf_canary_7c1f"


@pytest.fixture(scope="module")
def running(standin_serve: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("standin")
    token = folder / "token"
    token.write_text(CANARY)
    with stack("dsv4-standin-test", standin_serve, folder, env={"HF_TOKEN_FILE": str(token)}) as found:
        found.compose("build", "materialize", timeout=600)
        found.up()
        found.wait_for("ready")
        yield found


def healthy(running: Stack) -> bool:
    return running.health() == "healthy"


def is_running_and_unhealthy(running: Stack) -> bool:
    """Docker calls one unhealthy too that has ended."""
    state = running.inspect()["State"]
    return (state["Status"], state["Health"]["Status"]) == ("running", "unhealthy")


def stream(running: Stack, count: int) -> HTTPResponse:
    """An answer that has begun."""
    connection = HTTPConnection("127.0.0.1", running.port, timeout=60)
    body = {"model": "tiny-counter", "prompt": "abcdef", "max_tokens": count, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    answer = connection.getresponse()
    assert answer.read(6) == b"data: "
    return answer


def test_it_is_healthy_once_it_has_answered_rightly(running: Stack) -> None:
    assert wait_until(lambda: healthy(running), timeout_s=120)
    assert running.complete() == "ghij"
    said = running.inspect()["State"]["Health"]["Log"][-1]["Output"]
    assert said.startswith("ready: 'abcdef' is answered with 'ghijklmnopqrstuv'")


def test_nobody_is_root_and_nothing_may_be_written_but_what_has_to_be(running: Stack) -> None:
    for service in ("hub", "materialize", "serve"):
        found = running.inspect(service)
        host = found["HostConfig"]
        assert found["Config"]["User"] == "10001:10001"
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"] or []) == (True, ["ALL"], [])
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
    prepared = running.inspect("prepare")["HostConfig"]
    assert (prepared["CapDrop"], sorted(prepared["CapAdd"])) == (["ALL"], ["CHOWN", "DAC_OVERRIDE", "FOWNER"])
    assert prepared["NetworkMode"] == "none"
    caps = succeed("docker", "exec", running.container(), "grep", "CapEff", "/proc/self/status", timeout=30).stdout
    assert caps.split() == ["CapEff:", "0000000000000000"]
    for path in ("/x", "/opt/dsv4/x", "/weights/x"):
        done = run("docker", "exec", running.container(), "touch", path, timeout=30)
        assert "Read-only file system" in done.stderr
    assert run("docker", "exec", running.container(), "touch", "/cache/x", timeout=30).returncode == 0


def test_a_benchmark_finds_nothing_that_is_not_explained(running: Stack) -> None:
    """Whether there is AppArmor (5.1) is the host's affair."""
    found = {service: cis.failed(running.inspect(service)) - {"5.1"} for service in EXPLAINED}
    assert found == EXPLAINED
    for number in set().union(*EXPLAINED.values()):
        assert f"| {number} |" in SERVING


def test_the_token_is_nowhere_to_be_seen(running: Stack) -> None:
    """In no image, environment, log or rendered file; only in the file of the one container that needs it."""
    containers = [running.container(service) for service in ("prepare", "hub", "materialize", "serve")]
    assert CANARY not in succeed("docker", "inspect", *containers, timeout=30).stdout
    assert all(CANARY not in running.log(service) for service in ("prepare", "hub", "materialize", "serve"))
    assert all(CANARY not in file.read_text() for file in running.files)
    assert CANARY not in running.compose("config").stdout
    for image in {running.inspect(service)["Config"]["Image"] for service in ("materialize", "serve")}:
        assert CANARY not in succeed("docker", "history", "--no-trunc", image, timeout=30).stdout
    assert run("docker", "exec", running.container(), "ls", "/run/secrets", timeout=30).stdout == ""


def test_a_client_that_streams_while_it_is_stopped_gets_its_whole_answer(running: Stack) -> None:
    running.fault("slow")
    answer = stream(running, 5)
    stopping = threading.Thread(target=running.compose, args=("stop", "serve"))
    stopping.start()
    assert wait_until(lambda: running.complete() in ("503", "0"), timeout_s=120, interval_s=0.1)
    text = answer.read().decode()
    assert text.endswith("data: [DONE]\n\n")
    assert text.count('"text"') == 5
    stopping.join()
    state = running.inspect()["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert "dsv4: stopped: nothing was in flight" in running.log()
    running.up()
    running.wait_for("ready")


def test_a_hang_makes_it_unhealthy_refuses_users_and_starts_it_again(running: Stack) -> None:
    before = running.inspect()["RestartCount"]
    running.fault("hang")
    user = threading.Thread(target=running.ask, args=("/v1/completions", {"prompt": "a", "max_tokens": 2}))
    user.start()
    assert wait_until(lambda: is_running_and_unhealthy(running), timeout_s=120, interval_s=0.2)
    assert running.complete() == "503"
    assert wait_until(lambda: running.inspect()["RestartCount"] == before + 1, timeout_s=120)
    user.join()
    running.wait_for("ready")
    assert "dsv4: hung: 1 requests run, and nothing has moved for" in running.log()


def test_garbage_is_refused_with_its_reason_until_it_is_over(running: Stack) -> None:
    running.fault("garbage")
    running.wait_for("wrong")
    assert wait_until(lambda: running.health() == "unhealthy", timeout_s=120)
    assert running.complete() == "503"
    assert running.ask("/health")[0] == 503
    assert "dsv4: wrong: 'abcdef' is answered with the tokens [33, 33," in running.log()
    running.fault("none")
    running.wait_for("ready")
    assert running.complete() == "ghij"


def test_weights_that_change_are_told_of_and_not_started_with(running: Stack) -> None:
    config = running.weights / "config.json"
    good, found = config.read_bytes(), config.stat()
    config.write_bytes(good.replace(b"512", b"256"))
    try:
        assert wait_until(lambda: bool(running.state().get("warnings")), timeout_s=120)
        assert running.complete() == "ghij"
        # `compose restart` bypasses the init container.
        running.compose("restart", "serve")
        assert wait_until(lambda: running.inspect()["State"]["ExitCode"] == 6, timeout_s=120)
        assert running.complete() == "0"
        running.up()
        running.wait_for("ready")
        assert config.read_bytes() == good
    finally:
        config.write_bytes(good)
        os.utime(config, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_an_idle_engine_stays_healthy(running: Stack) -> None:
    assert wait_until(lambda: healthy(running), timeout_s=120)
    time.sleep(8)
    assert (running.state()["hangs"], running.health()) == (0, "healthy")


def test_a_full_cache_volume_is_told_at_once(standin_serve: str, tmp_path: Path) -> None:
    with stack("dsv4-full-test", standin_serve, tmp_path, SMALL_CACHE, env={"STANDIN_RESTART": "no"}) as full:
        full.up()
        assert wait_until(lambda: full.inspect()["State"]["Status"] == "exited", timeout_s=120)
        assert full.inspect()["State"]["ExitCode"] == 7
        assert full.log() == (
            "error: the kernel caches' folder /cache has 1.0 MiB free, and needs 256.0 MiB\n"
            "  next: make room where Docker keeps its volumes, or delete the caches: dsv4 down --caches\n"
        )


def test_a_start_that_does_not_move_is_reported_and_ended(standin_serve: str, tmp_path: Path) -> None:
    env = {"STANDIN_LOAD": "spin", "STANDIN_STALL_S": "4", "STANDIN_READY_S": "10", "STANDIN_RESTART": "no"}
    with stack("dsv4-spin-test", standin_serve, tmp_path, env=env) as spinning:
        spinning.up()
        assert wait_until(lambda: spinning.inspect()["State"]["Status"] == "exited", timeout_s=120)
        assert spinning.inspect()["State"]["ExitCode"] == 10
        said = spinning.log()
    assert re.search(r"^dsv4: the start has not moved for \d+ s\ndsv4: phase: NCCL\n", said, re.MULTILINE)
    assert "in init_process_group_that_never_ends" in said
    assert "error: not ready after 10 s\n" in said
