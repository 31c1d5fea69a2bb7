"""The README's main job, word for word, in real containers: from a checkout to a served model, and what follows."""

import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import load
from helpers.process import DSV4, dsv4, run, succeed
from helpers.wait import wait_until

pytestmark = pytest.mark.docker

PROJECT = "dsv4-demo"
URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Demo:
    """A finished `scripts/demo`."""

    output: str
    seconds: float
    env: dict[str, str]
    weights: Path

    def dsv4(self, *words: str, timeout: float = 600) -> tuple[int, str, str]:
        done = dsv4(*words, "--profile", "demo", timeout=timeout, env=self.env)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    if run("docker", "ps", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}", timeout=30).stdout:
        pytest.skip("a demo runs on this machine, and is left alone; stop it: scripts/demo --down")
    folder = tmp_path_factory.mktemp("weights")
    env = {"DSV4_WEIGHTS_DIR": str(folder)}
    try:
        began = time.monotonic()
        done = succeed("scripts/demo", timeout=1500, env=env)
        seconds = time.monotonic() - began
        yield Demo(output=done.stdout, seconds=seconds, env=env, weights=folder / "tiny-counter-long")
    finally:
        succeed("scripts/demo", "--down", timeout=180, env=env)


def container(service: str) -> str:
    return f"{PROJECT}-{service}-1"


def log(service: str) -> str:
    done = succeed("docker", "logs", container(service), timeout=30)
    return done.stdout + done.stderr


def health() -> str:
    done = run(
        "docker", "inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container("serve"), timeout=30
    )
    return done.stdout.strip()


def test_it_ends_with_an_answer_the_manifest_and_the_url(demo: Demo) -> None:
    assert "ok    answer: 'abcdef' -> 'ghijklmnopqrstuv'\n" in demo.output
    assert "ok    manifest: " in demo.output
    assert "ok    context length: 512\n" in demo.output
    assert "WRONG" not in demo.output
    assert f"It serves at {URL}." in demo.output


def test_the_printed_curl_command_answers(demo: Demo) -> None:
    (command,) = [line.strip() for line in demo.output.splitlines() if line.strip().startswith("curl ")]
    answer = json.loads(succeed(*shlex.split(command), timeout=60).stdout)
    assert answer["choices"][0]["text"] == "ghijklmnopqrstuv"


def test_shards_are_the_bases_and_the_config_is_the_overlays(demo: Demo) -> None:
    manifest = json.loads((demo.weights / ".dsv4/manifest.json").read_text())
    assert (manifest["config"], manifest["conversion"]) == ("overlay", "demo")
    origins = {path: entry["origin"] for path, entry in manifest["files"].items()}
    assert origins.pop("config.json") == "overlay"
    assert set(origins.values()) == {"base"}
    assert sum(path.endswith(".safetensors") for path in origins) == 4
    assert json.loads((demo.weights / "config.json").read_text())["max_position_embeddings"] == 512


def test_status_and_verify_agree(demo: Demo) -> None:
    code, out, _ = demo.dsv4("status", "--json")
    states = {state["service"]: state for state in json.loads(out)}
    assert code == 0
    assert (states["serve"]["health"], states["hub"]["health"]) == ("healthy", "healthy")
    assert (states["materialize"]["status"], states["materialize"]["exit_code"]) == ("exited", 0)
    code, out, _ = demo.dsv4("verify", "--json")
    assert code == 0
    assert all(finding["ok"] for finding in json.loads(out))


def test_metrics_and_models_are_served(demo: Demo) -> None:
    assert demo.output
    models = json.loads(succeed("curl", "-sf", f"{URL}/v1/models", timeout=30).stdout)
    assert [(model["id"], model["max_model_len"]) for model in models["data"]] == [("tiny-counter", 512)]
    metrics = succeed("curl", "-sf", f"{URL}/metrics", timeout=30).stdout
    assert "vllm:prefix_cache_queries_total" in metrics


def test_weights_are_read_only_in_serve(demo: Demo) -> None:
    assert demo.output
    done = run("docker", "exec", container("serve"), "touch", "/weights/tiny-counter-long/config.json", timeout=30)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_the_demo_again_builds_nothing_downloads_nothing_and_takes_less_than_a_third(demo: Demo) -> None:
    def started() -> str:
        return succeed("docker", "inspect", "--format", "{{.State.StartedAt}}", container("serve"), timeout=30).stdout

    def seconds() -> float:
        began = time.monotonic()
        done = succeed("scripts/demo", timeout=600, env=demo.env)
        assert done.stdout == demo.output
        assert "build: every image is there already" in done.stderr
        return time.monotonic() - began

    before = log("hub").count("GET"), started()
    # The better of two, because others use the machine too.
    assert min(seconds(), seconds()) < demo.seconds / 3
    assert (log("hub").count("GET"), started()) == before


def test_it_was_warmed_before_anybody_was_served(demo: Demo) -> None:
    said = log("serve")
    warmed, ready = said.index("dsv4: warm: 400 tokens: "), said.index("dsv4: ready: ")
    assert said.index("dsv4: warm: 4 tokens: ") < warmed < ready
    code, out, _ = demo.dsv4("warm", "100", "--json")
    assert code == 0
    assert [(each["length"], each["problem"]) for each in json.loads(out)] == [(100, "")]
    # Nothing comes out of the prefix cache, neither what the start sent nor what the last one did.
    before = prefix_cache_hits()
    assert [demo.dsv4("warm", "400")[0] for _ in range(2)] == [0, 0]
    assert prefix_cache_hits() == before
    code, _, err = demo.dsv4("warm", "1000")
    assert code == 10
    assert "error: the engine was not warmed:\n  1000 tokens: 400: " in err


def prefix_cache_hits() -> list[str]:
    """What vLLM counts."""
    lines = succeed("curl", "-sf", f"{URL}/metrics", timeout=30).stdout.splitlines()
    found = [line for line in lines if line.startswith("vllm:prefix_cache_hits_total")]
    assert found
    return found


def test_the_caches_of_an_engine_at_work_are_left_alone(demo: Demo, tmp_path: Path) -> None:
    """tests/stack/test_warm.py carries some."""
    archive = tmp_path / "kernels.tar.gz"
    archive.touch()
    used = "error: the volume dsv4-cache-cpu-cpu is used by dsv4-demo-serve-1 (running)\n"
    for flag in ("--export", "--import"):
        code, _, err = demo.dsv4("warm", flag, str(archive))
        assert (code, err) == (2, f"{used}  next: run: dsv4 down --profile demo\n")
    assert archive.read_bytes() == b""


def test_stop_ends_the_engine_with_exit_code_0_and_up_starts_it_again_without_a_download(demo: Demo) -> None:
    succeed("docker", "stop", container("serve"), timeout=90)
    state = json.loads(succeed("docker", "inspect", container("serve"), timeout=30).stdout)[0]["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    code, _, err = demo.dsv4("verify")
    assert (code, err) == (
        10,
        "error: dsv4-demo: serve does not run\n  next: run: dsv4 up --profile demo\n",
    )
    requests = log("hub").count("/resolve/")
    code, _, _ = demo.dsv4("up")
    assert code == 0
    assert log("hub").count("/resolve/") == requests


def test_a_thousand_requests_survive_a_stop_in_their_middle(demo: Demo) -> None:
    """64 at a time, half of them streamed; one that was refused is sent again, one that was accepted is answered.

    The engine has four at a time, so on a slow machine what was accepted drains for long: it gets a minute and a half.
    """
    asked = load.Load(1000)
    users = [threading.Thread(target=asked.work) for _ in range(64)]
    for user in users:
        user.start()
    assert wait_until(lambda: asked.outcomes["right"] > 100, timeout_s=120)
    succeed("docker", "stop", container("serve"), timeout=150)
    assert demo.dsv4("up")[0] == 0
    for user in users:
        user.join()
    assert asked.outcomes["right"] == 1000
    assert set(asked.outcomes) == {"right", "refused"}, asked.outcomes


def restarts() -> int:
    return int(succeed("docker", "inspect", "--format", "{{.RestartCount}}", container("serve"), timeout=30).stdout)


def test_a_real_engine_that_hangs_is_noticed_and_started_again(demo: Demo) -> None:
    """Its core is stopped as by a debugger; vLLM's own /health stays 200."""
    assert demo.output
    before = restarts()
    top = succeed("docker", "top", container("serve"), "-eo", "pid,args", timeout=30).stdout
    core = next(int(line.split()[0]) for line in top.splitlines() if "VLLM::EngineCore" in line)
    os.kill(core, signal.SIGSTOP)
    user = threading.Thread(target=load.ask, kwargs={"is_streamed": False})
    user.start()
    assert wait_until(lambda: "dsv4: hung: " in log("serve"), timeout_s=120)
    assert load.ask(is_streamed=False) == "refused"
    assert wait_until(lambda: restarts() == before + 1, timeout_s=120)
    assert wait_until(lambda: health() == "running healthy", timeout_s=600)
    user.join()
    assert restarts() == before + 1
    assert "dsv4: likely: a process of the engine was stopped by a signal (state T)" in log("serve")


def test_a_restart_over_touched_weights_does_not_serve_until_they_are_repaired(demo: Demo) -> None:
    config = demo.weights / "config.json"
    good = config.read_bytes()
    config.write_bytes(good.replace(b"512", b"256"))
    succeed("docker", "compose", "-p", PROJECT, "restart", "serve", timeout=120)
    assert wait_until(lambda: "config.json" in log("serve").rpartition("error: ")[2], timeout_s=120)
    assert "healthy" not in health().split()
    code, _, err = demo.dsv4("up")
    assert code == 0, err
    assert config.read_bytes() == good


def test_the_caches_alone_are_deleted(demo: Demo) -> None:
    def volumes() -> list[str]:
        return succeed(
            "docker", "volume", "ls", "--quiet", "--filter", "name=dsv4-cache-cpu", timeout=30
        ).stdout.split()

    assert volumes()
    code, _, err = demo.dsv4("down", "--caches")
    assert (code, volumes()) == (0, []), err
    assert (demo.weights / ".dsv4/manifest.json").exists()
    code, _, err = demo.dsv4("up")
    assert code == 0, err


def test_a_foreign_file_ends_up_with_its_exit_code(demo: Demo) -> None:
    foreign = demo.weights / "model-99999.safetensors"
    foreign.write_bytes(b"x")
    try:
        code, _, err = demo.dsv4("up")
        assert code == 6
        assert "model-99999.safetensors" in err
    finally:
        foreign.unlink()


@pytest.mark.usefixtures("demo")
def test_no_variable_of_the_engine_holds_a_token() -> None:
    assert "HF_TOKEN=" not in succeed("docker", "inspect", container("serve"), container("hub"), timeout=30).stdout


def test_logs_names_the_services(demo: Demo) -> None:
    code, out, _ = demo.dsv4("logs", "--tail", "5", "materialize")
    assert code == 0
    assert "materialize" in out
    assert os.environ.get("HF_TOKEN", "no token") not in out


def test_logs_go_on_as_the_engine_speaks(demo: Demo) -> None:
    command = [DSV4, "logs", "--follow", "serve", "--profile", "demo"]
    environment = {**os.environ, **demo.env}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as following:
        limit = threading.Timer(60, os.killpg, (following.pid, signal.SIGKILL))
        limit.start()
        try:
            assert following.stdout
            assert any("dsv4: ready: " in line for line in following.stdout)
            assert following.poll() is None
        finally:
            limit.cancel()
            os.killpg(following.pid, signal.SIGTERM)
