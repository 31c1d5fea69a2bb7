"""The Hub's listing, asked for by a process of its own: the same answers, the same errors, and no wait without end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.hub import BASE, World
from helpers.serving import serving
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import (
    ConfigError,
    Dsv4Error,
    IntegrityError,
    NetworkError,
    NotAllowedError,
    NotFoundError,
    UsageError,
)
from dsv4_stack.guest import hub, listing
from dsv4_stack.guest.demo.faults import Refusal
from dsv4_stack.guest.demo.server import DemoHub
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.hub import RemoteFile, Snapshot

# `world` has another one in its place.
from dsv4_stack.guest.listing import ask

pytest_plugins = ["helpers.hub_fixtures"]

LIMITS = Limits(backoff_s=0.001, backoff_most_s=0.001)
SNAPSHOT = Snapshot(
    repo="org/base",
    requested="main",
    revision="0" * 40,
    files=(RemoteFile(path="é\n", size=5, sha256=None, blob_id="1" * 40),),
)


def failure(work: Callable[[], object]) -> tuple[type[Dsv4Error], str, str]:
    with pytest.raises(Dsv4Error) as caught:
        work()
    return type(caught.value), caught.value.message, caught.value.next_step


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Has a shell script asked instead of this Python, in a folder that it may write to."""

    def put(script: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(listing.sys, "executable", str(path))
        return tmp_path

    return put


# The real process


def test_it_answers_as_the_hub_does_and_runs_nothing_that_lies_around(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.private[BASE] = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "json.py").write_text("raise SystemExit('from the wrong folder')\n")
    monkeypatch.chdir(tmp_path)
    found = ask(BASE, "main", 60)
    assert found == hub.snapshot(BASE, "main")
    assert len(found.files) > 5
    assert world.server.requests == [f"GET /api/models/{BASE}/revision/main?blobs=true"] * 2


def test_it_fails_as_the_hub_does(world: World) -> None:
    world.server.faults.refuse[BASE] = Refusal(status=403, code="GatedRepo")
    assert failure(lambda: ask(BASE, "main", 60)) == (
        NotAllowedError,
        "org/base is gated, and this token has no access",
        f"ask for access on {world.url}/org/base, then set HF_TOKEN",
    )


# What it is told, and what is made of its answer


def test_no_token_is_in_its_arguments(
    stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everybody on a machine may read those of every process."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = stand_in("printf '%s\\n' \"$@\" >arguments; env >environment; cat - answer")
    (folder / "answer").write_text(json.dumps(asdict(SNAPSHOT)))
    assert ask("org/base", "main", 60) == SNAPSHOT
    assert (folder / "arguments").read_text().split() == ["-P", "-m", "dsv4_stack.guest.listing", "org/base", "main"]
    assert "HF_TOKEN=hf_secret\n" in (folder / "environment").read_text()
    assert capfd.readouterr() == ("", "")


def test_one_that_hangs_is_ended(stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose name server does not answer: no timeout of a client's holds there."""
    monkeypatch.setenv("HF_ENDPOINT", "https://user:hunter2@hub.example")
    # It has to come to say who it is before it is ended.
    folder = stand_in("echo $$ >pid\nexec sleep 60")
    assert failure(lambda: ask("org/base", "main", 3)) == (
        NetworkError,
        "https://hub.example: no listing of org/base in 3 s",
        "check the network and $HF_ENDPOINT, then run it again",
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "code"), [("kill -9 $$", "-9"), ("exit 3", "3"), ("echo '{}'", "0"), ("echo 1", "0")]
)
def test_one_that_says_nothing_is_said(stand_in: Callable[[str], Path], script: str, code: str) -> None:
    stand_in(script)
    message = f"the listing ended with exit code {code} and said nothing"
    assert failure(lambda: ask("org/base", "main", 60)) == (Dsv4Error, message, "see above")


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(status=401, code="RepoNotFound"),
        Refusal(status=403, code="GatedRepo"),
        Refusal(status=404, code="RevisionNotFound"),
        Refusal(status=401),
        Refusal(status=429),
        Refusal(status=503),
    ],
)
def test_every_refusal_arrives_as_it_was(world: World, capsys: pytest.CaptureFixture[str], refusal: Refusal) -> None:
    world.server.faults.refuse[BASE] = refusal
    code = listing.main(BASE, "main")
    said = capsys.readouterr().out.encode()
    assert failure(lambda: listing.parse(said, code)) == failure(lambda: hub.snapshot(BASE, "main"))


@pytest.mark.parametrize(
    "kind", [Dsv4Error, UsageError, ConfigError, NotFoundError, NotAllowedError, IntegrityError, NetworkError]
)
def test_every_error_arrives_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[Dsv4Error]
) -> None:
    def fail(*_: str) -> None:
        raise kind("what\nhäppened", "what next")

    monkeypatch.setattr(hub, "snapshot", fail)
    code = listing.main("org/base", "main")
    assert code == kind.exit_code
    said = capsys.readouterr().out.encode()
    assert failure(lambda: listing.parse(said, code)) == (kind, "what\nhäppened", "what next")


def test_every_name_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(hub, "snapshot", lambda *_: SNAPSHOT)
    assert listing.main("org/base", "main") == 0
    assert listing.parse(capsys.readouterr().out.encode(), 0) == SNAPSHOT


@given(
    content=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["files", "message", "next_step", "repo", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(lambda document: json.dumps(document).encode()),
    code=st.integers(-15, 13),
)
def test_anything_may_be_said(content: bytes, code: int) -> None:
    with pytest.raises(Dsv4Error):
        listing.parse(content, code)


# Trying again


def troubled(monkeypatch: pytest.MonkeyPatch, *errors: Dsv4Error) -> list[tuple[str, str]]:
    """It fails so, and then no more; what it was asked."""
    asked: list[tuple[str, str]] = []
    left = list(errors)

    def answer(repo: str, revision: str, timeout_s: float) -> Snapshot:
        asked.append((repo, revision))
        assert 1 <= timeout_s <= listing.ANSWER_S
        if left:
            raise left.pop(0)
        return SNAPSHOT

    monkeypatch.setattr(listing, "ask", answer)
    return asked


@pytest.mark.usefixtures("offline_environment")
def test_a_network_that_fails_is_asked_again_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    asked = troubled(monkeypatch, *[NetworkError(f"trouble {number}", "look") for number in range(4)])
    assert listing.listing("org/base", "main", LIMITS, notes.append) == SNAPSHOT
    assert notes == [f"trouble {number}; again in 0.0 s" for number in range(4)]
    assert asked == [("org/base", "main")] * 5


@pytest.mark.usefixtures("offline_environment")
def test_a_hub_that_says_how_long_is_not_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    slept: list[float] = []
    monkeypatch.setattr(listing.time, "sleep", slept.append)
    asked = troubled(monkeypatch, *[NetworkError("busy", "look", wait_s=wait_s) for wait_s in (30, 2, 3600)])
    work = lambda: listing.listing("org/base", "main", LIMITS, notes.append)  # noqa: E731
    assert failure(work) == (NetworkError, "busy", "look")
    assert notes == ["busy; again in 30.0 s", "busy; again in 2.0 s"]
    assert [round(wait_s, 1) for wait_s in slept] == [30, 2]
    assert min(slept) > 2
    assert len(asked) == 3


@pytest.mark.parametrize("wait_s", [0, 7])
def test_how_long_arrives_as_it_was(world: World, capsys: pytest.CaptureFixture[str], wait_s: int) -> None:
    world.server.faults.refuse[BASE] = Refusal(status=429, retry_after=str(wait_s))
    code = listing.main(BASE, "main")
    with pytest.raises(NetworkError) as caught:
        listing.parse(capsys.readouterr().out.encode(), code)
    step = f"run it again in {wait_s} s" if wait_s else "run it again later"
    assert (caught.value.wait_s, caught.value.next_step) == (wait_s, step)


@pytest.mark.usefixtures("offline_environment")
def test_it_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(listing, "ATTEMPTS", 5)
    asked = troubled(monkeypatch, *[NetworkError(f"trouble {number}", "look") for number in range(9)])
    work = lambda: listing.listing("org/base", "main", LIMITS, notes.append)  # noqa: E731
    assert failure(work) == (NetworkError, "trouble 4", "look")
    assert (len(notes), len(asked)) == (4, 5)


@pytest.mark.usefixtures("offline_environment")
def test_it_is_not_asked_for_longer_than_the_limits_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    asked = troubled(monkeypatch, *[NetworkError(f"trouble {number}", "look") for number in range(9)])
    impatient = Limits(backoff_s=0.001, backoff_most_s=0.001, patience_s=0)
    work = lambda: listing.listing("org/base", "main", impatient, notes.append)  # noqa: E731
    assert failure(work) == (NetworkError, "trouble 0", "look")
    assert (len(notes), len(asked)) == (0, 1)


@pytest.mark.usefixtures("offline_environment")
@pytest.mark.parametrize("kind", [NotFoundError, NotAllowedError, IntegrityError, ConfigError, Dsv4Error])
def test_what_does_not_go_by_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, kind: type[Dsv4Error]) -> None:
    notes: list[str] = []
    asked = troubled(monkeypatch, kind("no", "look"))
    assert failure(lambda: listing.listing("org/base", "main", LIMITS, notes.append)) == (kind, "no", "look")
    assert (notes, len(asked)) == ([], 1)


@pytest.mark.usefixtures("offline_environment")
@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nobody_is_asked_who_is_not_to_be(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    asked = troubled(monkeypatch)
    assert failure(lambda: listing.listing("org/base", "main", LIMITS, print)) == (
        NetworkError,
        "org/base@main: HF_HUB_OFFLINE is set, so nobody is asked",
        "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, or run: dsv4 lock, before you go offline",
    )
    assert asked == []


# What it is for

CHILD = """
import re, sys
from pathlib import Path
from dsv4_stack.guest import access, hub, listing
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.crew import fetch_all
from dsv4_stack.guest.download.download import Download, Quiet
from dsv4_stack.guest.download.limits import DEFAULT
found = listing.listing("org/base", "main", DEFAULT, print)
file, = found.files
address = Address(hub.resolve_url(found.repo, found.revision, file.path), access.bearer())
download = Download(path=file.path, address=address, target=Path(sys.argv[1]), size=file.size, sha256=file.sha256,
                    git_sha1=None)
fetch_all([download], DEFAULT, Quiet(), lambda download, found: print(found.size, end=" "))
print(re.search("VmHWM: *(.*) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.usefixtures("offline_environment")
def test_listing_and_fetching_take_little_memory(tmp_path: Path) -> None:
    """Not by ru_maxrss, which a process has from whoever started it."""
    size, most = 64 << 20, 64 << 10
    (tmp_path / "hub/org/base").mkdir(parents=True)
    with (tmp_path / "hub/org/base/f.safetensors").open("wb") as file:
        file.truncate(size)
    with serving(DemoHub(tmp_path / "hub", "127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, tmp_path / "f"],
            env=os.environ | {"HF_ENDPOINT": server.url},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert server.sent["org/base/f.safetensors"] == size
    assert (done.returncode, done.stderr) == (0, "")
    came, peak = map(int, done.stdout.split())
    assert came == size
    assert peak < most
