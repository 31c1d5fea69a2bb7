"""Every fault, once for a plain container and once for the stack: set up, act, watch."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from helpers.process import DSV4, ROOT, run
from helpers.wait import wait_until

from harness.serving import subjects
from harness.serving.subjects import Ours, Plain, Subject, look, outcome
from harness.serving.timeline import Sample, Timeline, recovered, watch

READY_S: Final = 60.0
# Of the demo's 462 KiB.
HALF: Final = 230_000
SLOW_HUB: Final = ROOT / "tests/standin/slow-hub.yaml"
SMALL_CACHE: Final = ROOT / "tests/standin/small-cache.yaml"


def never(_samples: list[Sample]) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a scenario plays: the stand-in's image, a folder of its own with materialized weights."""

    image: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`act` does the harm to a subject that is ready, or that has just been started where `from_start` says so."""

    name: str
    act: Callable[[Subject], None] = lambda _: None
    window_s: float = 40.0
    until: Callable[[list[Sample]], bool] = never
    from_start: bool = False
    is_fault: bool = True
    """False: nothing is wrong, and nothing has to be noticed."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What each of the two did; a text where nothing was watched."""

    name: str
    plain: Timeline | str
    ours: Timeline | str
    is_fault: bool = True


def _kill_engine(subject: Subject) -> None:
    """kill -9 to the process that listens, from outside."""
    top = run("docker", "top", subject.container(), "-eo", "pid,args", timeout=30).stdout.splitlines()[1:]
    pids = [
        int(line.split()[0]) for line in top if "vllm serve" in line and "dsv4_stack" not in line and "init" not in line
    ]
    os.kill(pids[-1], signal.SIGKILL)


def _touch_weights(subject: Subject) -> None:
    config = subject.weights / "config.json"
    config.write_bytes(config.read_bytes().replace(b"512", b"256"))


def _touch_weights_and_restart(subject: Subject) -> None:
    _touch_weights(subject)
    subject.restart()


WATCHED: Final = (
    Scenario(name="hang: nothing is computed any more", act=lambda it: it.fault("hang"), until=recovered),
    Scenario(name="the API answers nothing", act=lambda it: it.fault("stuck"), until=recovered),
    Scenario(name="garbage with status 200", act=lambda it: it.fault("garbage"), window_s=20),
    Scenario(name="garbage from the start", from_start=True, window_s=20, env={"STANDIN_FAULT": "garbage"}),
    Scenario(name="crash", act=lambda it: it.fault("crash"), until=recovered),
    Scenario(name="kill -9 of the engine", act=_kill_engine, until=recovered),
    Scenario(
        name="slow load, 20 s",
        from_start=True,
        is_fault=False,
        window_s=40,
        until=recovered,
        env={"STANDIN_LOAD_S": "20"},
    ),
    Scenario(
        name="a start that never ends: ranks wait for each other",
        from_start=True,
        window_s=45,
        env={"STANDIN_LOAD": "spin", "STANDIN_READY_S": "25", "STANDIN_STALL_S": "10"},
    ),
    Scenario(name="weights changed under it", act=_touch_weights, window_s=12),
    Scenario(name="weights changed, then `restart`", act=_touch_weights_and_restart, window_s=20),
    Scenario(name="`docker compose restart`", act=lambda it: it.restart(), until=recovered, is_fault=False),
)


def play(scenario: Scenario, place: Place) -> Row:
    with subjects.plain(place.image, place.folder, scenario.env) as it:
        plain = _watched(scenario, it)
    with subjects.ours(place.image, place.folder, scenario.env) as it:
        return Row(name=scenario.name, plain=plain, ours=_watched(scenario, it), is_fault=scenario.is_fault)


def _watched(scenario: Scenario, subject: Subject) -> Timeline:
    """Weights are put right before and after: both read the same folder."""
    with _kept(subject.weights / "config.json"):
        # A start that fails is what some are about, and is waited for by none of them.
        starting = threading.Thread(target=subject.start)
        starting.start()
        if scenario.from_start:
            wait_until(lambda: look(subject).status == "running", timeout_s=READY_S, interval_s=0.1)
        else:
            _ready(subject)
            scenario.act(subject)
        found = watch(subject, scenario.window_s, scenario.until)
    starting.join()
    return found


def _ready(subject: Subject) -> None:
    is_up = wait_until(
        lambda: look(subject).health == "healthy" and outcome(subject) == "right", timeout_s=READY_S, interval_s=0.2
    )
    if not is_up:
        raise ValueError(f"{subject.name} does not become ready: {look(subject)}\n{subject.log()}")


@contextmanager
def _kept(path: Path) -> Iterator[None]:
    """A file with its bytes and times, whatever happens."""
    content, found = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def full_cache(place: Place) -> Row:
    """A volume of 1 MiB for the kernel caches."""
    name = "the kernel caches' volume is full (1 MiB)"
    small = "type=tmpfs,destination=/cache,tmpfs-size=1048576"
    scenario = Scenario(name=name, from_start=True, window_s=10)
    with subjects.plain(place.image, place.folder, {}, cache=small) as it:
        plain = _watched(scenario, it)
    with subjects.ours(place.image, place.folder, {}, SMALL_CACHE) as it:
        return Row(name=name, plain=plain, ours=_watched(scenario, it))


def killed_init(place: Place) -> Row:
    """The Hub is slow, so that there is a middle; then the same command again. What is fetched twice: faults.py."""
    fresh = place.folder / "fresh"
    with subjects.ours(place.image, fresh, {}, SLOW_HUB) as it:
        hub, stack = it.stack.container("hub"), it.stack
        stack.up("hub")
        wait_until(lambda: stack.inspect("hub")["State"]["Health"]["Status"] == "healthy", timeout_s=30)
        _tell(hub, "/__faults", {"rate": 60_000})
        first = threading.Thread(target=it.start)
        first.start()
        wait_until(lambda: _sent(hub) > HALF, timeout_s=60, interval_s=0.05)
        run("docker", "kill", stack.container("materialize"), timeout=30)
        first.join()
        served, began = look(it).status, time.monotonic()
        _tell(hub, "/__faults", {})
        again = it.start()
        _ready(it)
        then = again or f"the same `up` serves {time.monotonic() - began:.0f} s later"
    return Row(name="kill -9 of the init container half-way", plain="has none", ours=f"serve is {served}; {then}")


def _tell(hub: str, path: str, document: object = None) -> str:
    """To the Hub's control: POST with a document, else GET; what it answers."""
    asked = f"'POST', '{path}', {json.dumps(document)!r}" if document is not None else f"'GET', '{path}'"
    code = "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=5); "
    code += f"c.request({asked}); print(c.getresponse().read().decode())"
    return run("docker", "exec", hub, "python3", "-c", code, timeout=30).stdout


def _sent(hub: str) -> int:
    """Bytes of files since the Hub's count began."""
    return sum(json.loads(_tell(hub, "/__stats"))["sent"].values())


def taken_port(place: Place) -> Row:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        it = Plain(place.image, place.folder, {})
        it.port = port
        try:
            plain = it.start()
        finally:
            it.stop()
        ours = _doctor("demo", "--port", str(port), of=("port",))
    return Row(name="the port is taken", plain=f"created, then: {plain}", ours=ours)


def missing_gpu(place: Place) -> Row:
    done = run("docker", "run", "--rm", "--gpus", "2", place.image, timeout=60)
    ours = _doctor("w4a8-tp2", of=("NVIDIA", "GPU"))
    return Row(name="GPUs are missing", plain=subjects.trouble(done.stderr), ours=ours)


def _doctor(profile: str, *words: str, of: tuple[str, ...]) -> str:
    """What `dsv4 up` finds before it touches anything: what is wrong with the subjects that begin so."""
    began = time.monotonic()
    done = run(DSV4, "doctor", "--json", "--profile", profile, *words, timeout=120)
    found = [each for each in json.loads(done.stdout) if each["subject"].startswith(of)]
    wrong = [f"{each['subject']}: {each['found']}" for each in found if not each["ok"]]
    return f"doctor ends with {done.returncode} after {time.monotonic() - began:.1f} s: {'; '.join(wrong)}"


def restarted_daemon(place: Place) -> Row:
    """Both at once, because there is one daemon. Its restart policy starts containers in no order, without any init."""
    name = "the Docker daemon is restarted"
    with subjects.plain(place.image, place.folder, {}) as theirs, subjects.ours(place.image, place.folder, {}) as it:
        for subject in (theirs, it):
            subject.start()
            _ready(subject)
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", RESTART, str(ROOT / "scripts/ensure-docker")], check=True, timeout=180)
        told = []
        for subject in (theirs, it):
            _ready(subject)
            told.append(f"serves again {time.monotonic() - began:.0f} s after; {_checked(subject)}")
        return Row(name=name, plain=told[0], ours=told[1])


def _checked(subject: Subject) -> str:
    asked = subject.log().count("is answered with")
    return (
        f"weights and an answer checked at each of {asked} starts" if isinstance(subject, Ours) else "nothing checked"
    )


RESTART: Final = """
import os, signal, subprocess, sys, time
if os.path.isdir("/run/systemd/system"):
    subprocess.run(["systemctl", "restart", "docker"], check=True)
else:
    pid = int(open("/var/run/docker.pid").read())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.1)
    subprocess.run([sys.argv[1]], check=True, stderr=subprocess.DEVNULL)
"""
SPECIAL: Final = (full_cache, killed_init, taken_port, missing_gpu)
