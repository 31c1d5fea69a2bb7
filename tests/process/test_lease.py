"""One run at a time: who waits for whom, who is dead, and who takes over, on one host and between hosts."""

import errno
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import pytest
from helpers.clock import Clock
from helpers.lease_run import started
from helpers.wait import wait_until
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import Dsv4Error, NoSpaceError, UsageError
from dsv4_stack.guest.checkpoint import claims, lease
from dsv4_stack.guest.checkpoint.claims import Claim, Link
from dsv4_stack.guest.checkpoint.lease import Lease, Timing
from dsv4_stack.guest.checkpoint.progress import Progress
from dsv4_stack.guest.files import write_atomically

DEAD_S = lease.DEFAULT.dead_s
POLL_S = lease.DEFAULT.poll_s
# Nobody is found dead by silence, and nobody waits long for a look.
PATIENT = Timing(beat_s=0.01, dead_s=3600, poll_s=0.005)
OTHER = Claim(nonce="0" * 31 + "1", host="node-7", pid=4711, since="2026-01-02 03:04:05 UTC", flock="other-boot 1:2")


class Listening(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(as_json=True)
        self.said: list[tuple[str, str, dict[str, object]]] = []

    def say(self, event: str, text: str, **fields: object) -> None:
        self.said.append((event, text, fields))


@dataclass
class Hours(Clock):
    """A clock that goes on while a run waits, and what happens at which time."""

    events: dict[float, Callable[[], object]] = field(default_factory=dict)
    start: float = 1000.0

    @property
    def passed(self) -> float:
        return self.now - self.start

    def sleep(self, seconds: float) -> None:
        assert self.passed < 10_000, "it waits for ever"
        self.now += seconds
        for time in sorted(time for time in self.events if time <= self.passed):
            self.events.pop(time)()


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    hours = Hours()
    monkeypatch.setattr(lease, "monotonic", hours)
    monkeypatch.setattr(lease, "sleep", hours.sleep)
    return hours


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}\n")
    (folder / ".dsv4").mkdir()
    (folder / ".dsv4/manifest.json").write_bytes(b"{}\n")
    return folder


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


UNTOUCHED = {"config.json", ".dsv4", ".dsv4/manifest.json"}


def put(folder: Path, claim: Claim = OTHER, *, beat: int = 0, name: str = "lock") -> Path:
    """A claim as a run on another host writes it."""
    path = folder / ".dsv4" / name
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    claims.write(file, claim, beat=beat)
    os.close(file)
    return path


def waiting_for(folder: Path, claim: Claim) -> tuple[str, str, dict[str, object]]:
    text = f"another run works on {folder}: pid {claim.pid} on {claim.host} since {claim.since}; waiting for it"
    return "waiting", text, whom(folder, claim)


def waiting_for_someone(folder: Path) -> tuple[str, str, dict[str, object]]:
    return "waiting", f"another run works on {folder}; waiting for it", {"folder": str(folder)}


def taken_from(folder: Path, claim: Claim, reason: str) -> tuple[str, str, dict[str, object]]:
    text = f"{folder} is taken over from pid {claim.pid} on {claim.host} since {claim.since}: {reason}"
    return "takeover", text, {**whom(folder, claim), "reason": reason}


def whom(folder: Path, claim: Claim) -> dict[str, object]:
    return {"folder": str(folder), "host": claim.host, "pid": claim.pid, "since": claim.since}


def claim_of(folder: Path) -> Claim:
    found = claims.parse((folder / ".dsv4/lock").read_bytes())
    assert found
    return found


def fail_with(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))


SILENT = f"no sign of life for {DEAD_S:g} s"


# Alone


def test_who_is_alone_works_at_once_and_leaves_nothing(folder: Path) -> None:
    progress = Listening()
    with lease.held(folder, progress) as held:
        held.check()
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
        record = json.loads((folder / ".dsv4/lock").read_bytes())
    status = (folder / ".dsv4").stat()
    assert len(record.pop("nonce")) == 32
    assert record.pop("since").endswith(" UTC")
    assert record == {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "flock": f"{lease.boot_id()} {status.st_dev}:{status.st_ino}",
        "beat": 0,
    }
    assert tree(folder) == UNTOUCHED
    assert progress.said == []


def test_a_folder_that_stays_empty_is_taken_away_again(tmp_path: Path) -> None:
    with lease.held(tmp_path / "new/model", Listening()):
        assert tree(tmp_path / "new") == {"model", "model/.dsv4", "model/.dsv4/lock"}
    assert tree(tmp_path) == {"new"}


def test_a_folder_that_was_there_or_holds_something_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with lease.held(tmp_path / "there", Listening()):
        pass
    with lease.held(tmp_path / "filled", Listening()):
        (tmp_path / "filled/shard").touch()
    assert tree(tmp_path) == {"there", "there/.dsv4", "filled", "filled/shard"}


def test_a_failed_run_lets_go(folder: Path) -> None:
    with pytest.raises(UsageError, match="of no use"), lease.held(folder, Listening()):
        raise UsageError("of no use")
    assert tree(folder) == UNTOUCHED
    with lease.held(folder, Listening(), timing=PATIENT) as held:
        held.check()


def test_a_run_shows_that_it_lives_in_the_file_that_it_made(folder: Path) -> None:
    with lease.held(folder, Listening(), timing=PATIENT):
        path = folder / ".dsv4/lock"
        first = path.stat().st_ino
        before = claim_of(folder)

        def is_beating() -> bool:
            return json.loads(path.read_bytes())["beat"] >= 3

        assert wait_until(is_beating, timeout_s=60, interval_s=0.005)
        assert (claim_of(folder), path.stat().st_ino, path.stat().st_size) == (before, first, 512)


def test_a_disk_that_fails_for_a_moment_ends_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()
    write = claims.write

    def failing(file: int, claim: Claim, *, beat: int) -> None:
        if beat == 1:
            raise OSError(errno.EIO, "I/O error")
        write(file, claim, beat=beat)
        if beat == 2:
            tried.set()

    monkeypatch.setattr(claims, "write", failing)
    with lease.held(folder, Listening(), timing=PATIENT) as held:
        assert tried.wait(60)
        held.check()


# Two on one host


def test_a_second_run_waits_says_for_whom_and_then_works(folder: Path) -> None:
    progress = Listening()
    entered = threading.Event()

    def second() -> None:
        with lease.held(folder, progress, timing=PATIENT):
            entered.set()

    with started(folder) as first:
        assert first.next() == {"event": "held"}
        claim = claim_of(folder)
        thread = threading.Thread(target=second)
        thread.start()
        assert wait_until(lambda: bool(progress.said), timeout_s=60, interval_s=0.005)
        assert (claim.pid, claim.host) == (first.pid, os.uname().nodename)
        assert not entered.is_set()
        first.tell("end")
        assert first.next() == {"event": "ended"}
        thread.join(60)
        assert not thread.is_alive()
    assert entered.is_set()
    assert progress.said == [waiting_for(folder, claim)]
    assert tree(folder) == UNTOUCHED


def test_after_kill_9_the_next_run_goes_on_at_once(folder: Path, hours: Hours) -> None:
    progress = Listening()
    with started(folder) as first:
        assert first.next() == {"event": "held"}
        claim = claim_of(folder)
        first.send(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    assert claim_of(folder) == claim
    with lease.held(folder, progress) as held:
        held.check()
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
    assert hours.passed == 0
    assert progress.said == [taken_from(folder, claim, "its process has ended")]
    assert tree(folder) == UNTOUCHED


def test_a_stopped_run_of_this_kernel_is_not_dead(folder: Path, hours: Hours) -> None:
    progress = Listening()
    with started(folder) as first:
        assert first.next() == {"event": "held"}
        claim = claim_of(folder)
        first.send(signal.SIGSTOP)

        def go_on() -> None:
            first.send(signal.SIGCONT)
            first.tell("check")
            assert first.next() == {"event": "sound"}
            first.tell("end")
            assert first.next() == {"event": "ended"}

        hours.events[10 * DEAD_S] = go_on
        with lease.held(folder, progress) as held:
            held.check()
    assert hours.passed == 10 * DEAD_S
    assert progress.said == [waiting_for(folder, claim)]


def test_another_mount_of_the_same_folder_is_another_host(folder: Path, hours: Hours) -> None:
    status = (folder / ".dsv4").stat()
    claim = replace(OTHER, flock=f"{lease.boot_id()} {status.st_dev + 1}:{status.st_ino}")
    put(folder, claim)
    progress = Listening()
    with lease.held(folder, progress):
        assert hours.passed == DEAD_S
    assert progress.said == [waiting_for(folder, claim), taken_from(folder, claim, SILENT)]


def test_without_a_boot_id_the_kernel_is_not_believed(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "boot_id", lambda: "")
    put(folder, replace(OTHER, flock=""))
    with lease.held(folder, Listening()):
        assert (hours.passed, claim_of(folder).flock) == (DEAD_S, "")


def test_a_lock_without_a_claim_is_waited_for(folder: Path, hours: Hours) -> None:
    handle = os.open(folder / ".dsv4", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    hours.events[2 * DEAD_S] = lambda: os.close(handle)
    progress = Listening()
    with lease.held(folder, progress):
        assert hours.passed == 2 * DEAD_S
    assert progress.said == [waiting_for_someone(folder)]


@pytest.mark.parametrize("flock", [True, False])
def test_who_waits_makes_the_folder_anew_that_the_other_took_away(
    tmp_path: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch, *, flock: bool
) -> None:
    if not flock:
        monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))
    progress = Listening()
    with ExitStack() as first:
        first.enter_context(lease.held(tmp_path / "model", Listening()))
        claim = claim_of(tmp_path / "model")
        hours.events[10] = first.close
        with lease.held(tmp_path / "model", progress) as held:
            held.check()
            assert tree(tmp_path) == {"model", "model/.dsv4", "model/.dsv4/lock"}
    assert progress.said == [waiting_for(tmp_path / "model", claim)]
    assert tree(tmp_path) == set()


def test_a_folder_that_goes_while_one_comes_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_it = os.open
    opened: list[Path] = []

    def late(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(path)
        if len(opened) == 1:
            path.rmdir()
            path.parent.rmdir()
        return open_it(path, flags, mode)

    monkeypatch.setattr(os, "open", late)
    with lease.held(tmp_path / "model", Listening()) as held:
        held.check()
    assert opened[:2] == [tmp_path / "model/.dsv4"] * 2
    assert tree(tmp_path) == set()


# Two hosts


def test_a_claim_of_another_host_is_dead_when_it_is_silent_and_not_before(folder: Path, hours: Hours) -> None:
    put(folder)
    progress = Listening()
    with lease.held(folder, progress) as held:
        assert hours.passed == DEAD_S
        assert claim_of(folder).pid == os.getpid()
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
        held.check()
    assert progress.said == [waiting_for(folder, OTHER), taken_from(folder, OTHER, SILENT)]
    assert tree(folder) == UNTOUCHED


def test_every_sign_of_life_counts_again(folder: Path, hours: Hours) -> None:
    put(folder)
    hours.events = {(DEAD_S - POLL_S) * beat: lambda beat=beat: put(folder, beat=beat) for beat in (1, 2, 3)}
    progress = Listening()
    with lease.held(folder, progress):
        assert hours.passed == 3 * (DEAD_S - POLL_S) + DEAD_S
    assert progress.said == [waiting_for(folder, OTHER), taken_from(folder, OTHER, SILENT)]


@pytest.mark.parametrize("since", ["1970-01-01 00:00:00 UTC", "2106-02-07 06:28:15 UTC"])
def test_no_date_makes_a_claim_older_or_younger(folder: Path, hours: Hours, since: str) -> None:
    path = put(folder, replace(OTHER, since=since))
    os.utime(path, (0, 0))
    with lease.held(folder, Listening()):
        assert hours.passed == DEAD_S


def test_a_run_that_lives_on_another_host_is_waited_for(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Listening()
    beats: list[bytes] = []

    with started(folder, "--boot=another", "--no-flock", timing=PATIENT) as first:
        assert first.next() == {"event": "held"}
        claim = claim_of(folder)

        def until_the_next_beat(_: float) -> None:
            lock = folder / ".dsv4/lock"
            assert wait_until(lambda: lock.read_bytes() not in beats, timeout_s=60, interval_s=0.001)
            beats.append(lock.read_bytes())
            hours.now += DEAD_S - POLL_S
            if len(beats) == 20:
                first.tell("check")
                assert first.next() == {"event": "sound"}
                first.tell("end")
                assert first.next() == {"event": "ended"}

        monkeypatch.setattr(lease, "sleep", until_the_next_beat)
        with lease.held(folder, progress) as held:
            held.check()
    assert len(beats) == 20
    assert progress.said == [waiting_for(folder, claim)]


def test_each_of_several_that_come_first_is_named(folder: Path, hours: Hours) -> None:
    third = replace(OTHER, nonce="f" * 32, pid=8, host="node-8")
    put(folder)
    hours.events = {5: lambda: put(folder, third), 10: (folder / ".dsv4/lock").unlink}
    progress = Listening()
    with lease.held(folder, progress):
        assert hours.passed == 10
    assert progress.said == [waiting_for(folder, OTHER), waiting_for(folder, third)]


@pytest.mark.parametrize("content", [b"", b"\0" * 512, b'{"nonce": "00', b"[]", b"[" * 4000, b'{"nonce": "../../x"}'])
def test_a_claim_that_is_not_whole_may_be_one_that_is_being_written(folder: Path, hours: Hours, content: bytes) -> None:
    (folder / ".dsv4/lock").write_bytes(content)
    progress = Listening()
    with lease.held(folder, progress) as held:
        assert hours.passed == DEAD_S
        held.check()
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
    text = f"{folder} is taken over from a run that did not come to say who it is: {SILENT}"
    said = ("takeover", text, {"folder": str(folder), "reason": SILENT})
    assert progress.said == [waiting_for_someone(folder), said]
    assert tree(folder) == UNTOUCHED


def test_a_claim_that_becomes_whole_lives(folder: Path, hours: Hours) -> None:
    (folder / ".dsv4/lock").touch()
    hours.events[POLL_S] = lambda: put(folder)
    progress = Listening()
    with lease.held(folder, progress):
        assert hours.passed == POLL_S + DEAD_S
    assert progress.said == [waiting_for(folder, OTHER), taken_from(folder, OTHER, SILENT)]


def test_who_slept_before_looking_does_not_think_that_the_other_was_silent(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder)
    chain = claims.chain
    looks = 0

    def look(state: Path) -> list[Link]:
        nonlocal looks
        looks += 1
        if looks == 2:
            links = chain(state)
            hours.now += 1000
            return links
        return chain(state)

    monkeypatch.setattr(claims, "chain", look)
    hours.events[1000 + POLL_S] = (folder / ".dsv4/lock").unlink
    progress = Listening()
    with lease.held(folder, progress):
        pass
    assert progress.said == [waiting_for(folder, OTHER)]


# Without flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF])
def test_where_the_kernel_keeps_no_locks_claims_do(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", fail_with(number))
    progress = Listening()
    with ExitStack() as first:
        first.enter_context(lease.held(folder, Listening()))
        claim = claim_of(folder)
        hours.events[10] = first.close
        with lease.held(folder, progress) as held:
            assert hours.passed == 10
            held.check()
    assert claim.flock == ""
    assert progress.said == [waiting_for(folder, claim)]


@pytest.mark.usefixtures("no_flock")
def test_after_kill_9_without_locks_silence_tells(folder: Path, hours: Hours) -> None:
    progress = Listening()
    with started(folder, "--no-flock") as first:
        assert first.next() == {"event": "held"}
        first.send(signal.SIGKILL)
        first.wait()
    claim = claim_of(folder)
    with lease.held(folder, progress):
        assert hours.passed == DEAD_S
    assert progress.said == [waiting_for(folder, claim), taken_from(folder, claim, SILENT)]


@pytest.mark.usefixtures("no_flock")
def test_a_run_that_slept_too_long_is_told_and_harms_nobody(folder: Path, hours: Hours) -> None:
    progress = Listening()
    with started(folder, "--no-flock", timing=PATIENT) as first:
        assert first.next() == {"event": "held"}
        first.send(signal.SIGSTOP)
        with lease.held(folder, progress) as held:
            assert hours.passed >= DEAD_S
            claim = claim_of(folder)
            first.send(signal.SIGCONT)
            first.tell("check")
            error = (
                f"{folder} is no longer this run's: it was silent for too long, and was taken over by "
                f"pid {os.getpid()} on {claim.host} since {claim.since}\n"
                "  next: run it again: it waits for others, and goes on where they stopped"
            )
            assert first.next() == {"event": "lost", "error": error}
            first.tell("end")
            assert first.next() == {"event": "ended"}
            held.check()
            assert claim_of(folder) == claim
    assert [event for event, _, _ in progress.said] == ["waiting", "takeover"]
    assert tree(folder) == UNTOUCHED


@pytest.mark.parametrize("left", ["nothing", "something"])
def test_a_lease_does_not_come_back(folder: Path, left: str) -> None:
    with lease.held(folder, Listening()) as held:
        (folder / ".dsv4/lock").unlink()
        if left == "something":
            (folder / ".dsv4/lock").touch()
        whom = "a run that has ended" if left == "nothing" else "another run"
        with pytest.raises(Dsv4Error) as caught:
            held.check()
        assert caught.value.message == (
            f"{folder} is no longer this run's: it was silent for too long, and was taken over by {whom}"
        )
    assert tree(folder) == UNTOUCHED | ({".dsv4/lock"} if left == "something" else set())


# Several that find the same claim dead


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("no_flock", "impatient_threads")
def test_of_many_that_find_a_claim_dead_at_once_one_works_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(lease, "monotonic", clock)
    timing = Timing(beat_s=60, dead_s=DEAD_S, poll_s=0.001)
    many = 4
    problems: list[str] = []

    def work(progress: Listening) -> None:
        try:
            with lease.held(folder, progress, timing=timing) as held:
                (folder / "alone").touch(exist_ok=False)
                for _ in range(3):
                    held.check()
                (folder / "alone").unlink()
        except (OSError, Dsv4Error) as error:
            problems.append(str(error))

    for number in range(25):
        put(folder, replace(OTHER, nonce=f"{number:032x}"))
        heard = [Listening() for _ in range(many)]
        threads = [threading.Thread(target=work, args=(progress,)) for progress in heard]
        for thread in threads:
            thread.start()
        assert wait_until(lambda heard=heard: all(one.said for one in heard), timeout_s=60, interval_s=0.001)
        clock.now += DEAD_S
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert problems == []
        takeovers = [event for one in heard for event, _, _ in one.said if event == "takeover"]
        assert (takeovers, tree(folder)) == (["takeover"], UNTOUCHED)


def test_of_processes_that_find_a_claim_dead_at_once_one_works_at_a_time(folder: Path, tmp_path: Path) -> None:
    put(folder)
    clock = tmp_path / "clock"
    clock.write_text("0")
    timing = replace(PATIENT, dead_s=DEAD_S)
    options = ("--no-flock", f"--alone={tmp_path / 'alone'}", f"--clock={clock}")
    with ExitStack() as stack:
        runs = [stack.enter_context(started(folder, *options, timing=timing)) for _ in range(3)]
        for run in runs:
            assert run.next() == {"event": "waiting", **whom(folder, OTHER)}
            run.tell("check")
            run.tell("end")
        write_atomically(clock, str(DEAD_S).encode())
        said = [_all(run.next) for run in runs]
    assert [events[-3:] for events in said] == [["held", "sound", "ended"]] * 3
    assert sum(events.count("takeover") for events in said) == 1
    assert tree(folder) == UNTOUCHED


def _all(said: Callable[[], dict[str, object]]) -> list[object]:
    events = [said()["event"]]
    while events[-1] != "ended":
        events.append(said()["event"])
    return events


@contextmanager
def before_create(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> Iterator[None]:
    """Something happens between a run's finding that a claim is dead and its own claim."""
    create = claims.create

    def late(path: Path, claim: Claim) -> int | None:
        monkeypatch.setattr(claims, "create", create)
        happens()
        return create(path, claim)

    monkeypatch.setattr(claims, "create", late)
    yield


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("story", ["works", "has worked", "has worked, and a third works"])
def test_who_comes_too_late_to_take_over_waits_again(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    put(folder)
    works = ExitStack()
    leases: list[Lease] = []

    def first() -> None:
        mine = works if story == "works" else ExitStack()
        leases.append(mine.enter_context(lease.held(folder, Listening())))
        if story != "works":
            mine.close()
        if story == "has worked, and a third works":
            leases.append(works.enter_context(lease.held(folder, Listening())))

    def end() -> None:
        if story != "has worked":
            leases[-1].check()
            assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
        works.close()

    hours.events[3 * DEAD_S] = end
    with before_create(monkeypatch, first), lease.held(folder, Listening(), timing=Timing(dead_s=DEAD_S)) as late:
        late.check()
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
        if story == "has worked":
            assert hours.passed < 3 * DEAD_S
        else:
            assert hours.passed == 3 * DEAD_S
    assert tree(folder) == UNTOUCHED


def test_an_heir_that_was_killed_at_once_has_an_heir(folder: Path, hours: Hours) -> None:
    heir = replace(OTHER, nonce="2" * 32, pid=12)
    put(folder)
    put(folder, heir, name=f"lock.{OTHER.nonce}")
    put(folder, OTHER, name="lock.without-effect")
    progress = Listening()
    with lease.held(folder, progress) as held:
        held.check()
        assert hours.passed == DEAD_S
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
    assert progress.said == [waiting_for(folder, heir), taken_from(folder, heir, SILENT)]
    assert tree(folder) == UNTOUCHED


def test_a_folder_that_goes_before_the_claim_comes_is_made_anew(
    tmp_path: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_away() -> None:
        (tmp_path / "model/.dsv4").rmdir()
        (tmp_path / "model").rmdir()

    with before_create(monkeypatch, take_away), lease.held(tmp_path / "model", Listening()) as held:
        held.check()
    assert hours.passed == POLL_S
    assert tree(tmp_path) == set()


def test_an_heir_whose_disk_fails_leaves_no_claim(folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder)
    monkeypatch.setattr(Path, "rename", fail_with(errno.EIO))
    with pytest.raises(Dsv4Error) as caught, lease.held(folder, Listening()):
        pass
    path = folder / f".dsv4/lock.{OTHER.nonce}"
    assert caught.value.message == f"{path} cannot be written: {os.strerror(errno.EIO)}"
    assert hours.passed == DEAD_S
    assert tree(folder) == UNTOUCHED


def test_an_heir_that_slept_until_it_had_an_heir_is_told(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = replace(OTHER, nonce="3" * 32, pid=3, host="node-3")
    put(folder)
    settle = claims.settle

    def late(path: Path, claim: Claim) -> Path:
        path.unlink()
        put(folder, third)
        return settle(path, claim)

    monkeypatch.setattr(claims, "settle", late)
    with lease.held(folder, Listening()) as held, pytest.raises(Dsv4Error, match=f"taken over by {third}"):
        held.check()
    assert hours.passed == DEAD_S
    assert claim_of(folder) == third
    assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}


def test_a_claim_that_leads_in_a_circle_is_taken_for_one_that_is_not_whole(folder: Path, hours: Hours) -> None:
    put(folder)
    put(folder, name=f"lock.{OTHER.nonce}")
    progress = Listening()
    with lease.held(folder, progress) as held:
        held.check()
        assert hours.passed == DEAD_S
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}
    assert progress.said[0] == waiting_for_someone(folder)
    assert tree(folder) == UNTOUCHED


def test_heirs_of_claims_that_were_never_whole_are_one_another_s(folder: Path, hours: Hours) -> None:
    for name in ("lock", "lock.unreadable", "lock.unreadable.unreadable"):
        (folder / ".dsv4" / name).touch()
    with lease.held(folder, Listening()) as held:
        held.check()
        assert hours.passed == DEAD_S
        assert tree(folder) == {*UNTOUCHED, ".dsv4/lock"}


# Volumes that cannot be written


CLOSED = "choose a folder that this user may write, or mount it read-write"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")]
)
@pytest.mark.parametrize("name", [".dsv4", ".dsv4/lock"])
def test_a_folder_that_cannot_be_written_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str, name: str
) -> None:
    open_it = os.open

    def refused(path: Path, flags: int, mode: int = 0o777) -> int:
        if path == folder / name:
            raise OSError(number, os.strerror(number))
        return open_it(path, flags, mode)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UsageError) as caught, lease.held(folder, Listening()):
        pass
    assert (caught.value.message, caught.value.next_step) == (f"{folder}/{name} cannot be written: {reason}", CLOSED)
    assert tree(folder) == UNTOUCHED


def test_a_full_disk_keeps_no_half_claim(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", fail_with(errno.ENOSPC))
    with pytest.raises(NoSpaceError) as caught, lease.held(folder, Listening()):
        pass
    assert str(caught.value) == (
        f"{folder}/.dsv4/lock: No space left on device\n  next: make room there; see: df -h {folder}/.dsv4"
    )
    assert tree(folder) == UNTOUCHED


def test_a_disk_that_cannot_be_read_says_why(folder: Path) -> None:
    (folder / ".dsv4/lock").mkdir()
    with pytest.raises(Dsv4Error) as caught, lease.held(folder, Listening()):
        pass
    assert str(caught.value) == (
        f"{folder}/.dsv4 cannot be read: Is a directory\n  next: run it as a user who may read it"
    )


def test_a_claim_that_another_host_removes_while_it_is_read_is_gone(
    folder: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder)
    read = Path.open
    stale: list[Path] = []

    def open_it(self: Path, *words: str, **options: str) -> IO[str]:
        if self == path and not stale:
            stale.append(path)
            path.unlink()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(self, *words, **options)

    monkeypatch.setattr(Path, "open", open_it)
    with lease.held(folder, Listening()) as held:
        held.check()
    assert (stale, hours.passed) == ([path], 0)


# Claims


@given(st.binary(max_size=300) | st.from_regex(rb'\{"nonce": "[0-9a-f./]{32}", "pid": .*\}', fullmatch=True))
def test_nothing_but_a_claim_is_read_as_one(content: bytes) -> None:
    assert claims.parse(content) is None


@given(
    st.builds(
        Claim,
        nonce=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
        host=st.text(max_size=40).filter(str.isprintable),
        pid=st.integers(0, 1 << 22),
        since=st.just(OTHER.since),
        flock=st.just(OTHER.flock),
    ),
    st.integers(0, 1 << 40),
)
def test_a_claim_is_read_as_it_was_written(claim: Claim, beat: int) -> None:
    file = os.memfd_create("claim")
    try:
        claims.write(file, claim, beat=beat)
        content = os.pread(file, 1 << 16, 0)
    finally:
        os.close(file)
    assert (claims.parse(content), len(content), json.loads(content)["beat"]) == (claim, 512, beat)


@pytest.mark.parametrize(
    "field",
    [{"nonce": "../" + "0" * 29}, {"nonce": 1}, {"host": "\x1b[2J"}, {"pid": True}, {"pid": "1"}, {"since": None}],
)
def test_no_field_of_a_claim_leads_elsewhere(field: dict[str, object]) -> None:
    fields = {name: getattr(OTHER, name) for name in Claim.__dataclass_fields__}
    assert claims.parse(json.dumps(fields).encode()) == OTHER
    assert claims.parse(json.dumps({**fields, **field}).encode()) is None
