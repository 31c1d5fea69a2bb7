"""A partial file under many hands: what is hashed is what is on the disk, and what a killed run leaves counts."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4_stack.errors import Dsv4Error, IntegrityError, NoSpaceError
from dsv4_stack.guest.digests import of_bytes
from dsv4_stack.guest.download import marks, partial
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import Partial, Piece, SupersededError, Watch

KIB = 1 << 10
LIMITS = Limits(segment=16 * KIB, least_segment=16 * KIB, block=4 * KIB, least_block=4 * KIB, sync=1 << 40)
CONTENT = hashlib.shake_256(b"partial").digest(150 * KIB + 7)
IDENTITY = "a" * 64


def opened(
    path: Path,
    content: bytes = CONTENT,
    *,
    by_git: bool = False,
    limits: Limits = LIMITS,
    watch: Watch | None = None,
) -> Partial:
    return Partial(path, IDENTITY, len(content), by_git=by_git, limits=limits, watch=watch)


def write_next(file: Partial, piece: Piece, length: int, content: bytes = CONTENT) -> int:
    """The next bytes of a piece."""
    offset = piece.start + piece.done
    return file.write(piece, content[offset : min(offset + length, piece.end)])


def bring(file: Partial, content: bytes = CONTENT, length: int = 3000) -> int:
    """Take and write pieces until none is left; how many were the last of the file."""
    last = 0
    while piece := file.take():
        while not piece.is_done:
            write_next(file, piece, length, content)
        last += file.give_back(piece)
    return last


def taken(file: Partial) -> Piece:
    piece = file.take()
    assert piece
    return piece


def noted(path: Path) -> tuple[list[int], list[int]]:
    """What the marks next to a partial file say: done and flushed."""
    _, done, flushed = marks._read(path.with_name(path.name + partial.MARKS))
    return done, flushed


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(0, 40 * KIB), segment=st.integers(1, 12) | st.just(64))
def test_many_threads_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: int, segment: int
) -> None:
    content = CONTENT[:size]
    limits = replace(LIMITS, segment=segment * KIB, block=KIB)
    file = opened(tmp_path_factory.mktemp("many") / "f", content, by_git=True, limits=limits)

    def work(number: int) -> int:
        """Blocks of any length; pieces are given up at any point."""
        order, last = random.Random(seed + number), 0  # noqa: S311
        while piece := file.take():
            while not piece.is_done and order.random() > 0.1:
                write_next(file, piece, order.randrange(1, 3 * KIB), content)
            last += file.give_back(piece)
        return last

    with ThreadPoolExecutor(4) as pool:
        last = sum(pool.map(work, range(4)))
    # A thread may have left while another gave a piece back.
    assert last + bring(file, content) == (1 if size else 0)
    assert file.is_whole
    assert file.missing == 0
    assert file.finish() == of_bytes(content)
    file.forget()
    assert file.path.read_bytes() == content
    assert [path.name for path in file.path.parent.iterdir()] == ["f"]


def test_the_file_may_be_finished_while_others_still_write(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    pieces = [taken(file) for _ in range(len(CONTENT) // LIMITS.segment + 1)]
    assert file.take() is None
    with ThreadPoolExecutor(4) as pool:
        for piece in random.Random(1).sample(pieces, len(pieces)):  # noqa: S311
            pool.submit(lambda piece: [write_next(file, piece, 999) for _ in range(17)], piece)
        # Too early: it hashes what there is, and loses nothing of what comes.
        assert file.finish().size <= len(CONTENT)
    assert all(piece.is_done for piece in pieces)
    assert file.finish() == replace(of_bytes(CONTENT), git_sha1="")
    file.close()


@pytest.mark.parametrize("by_git", [False, True])
def test_a_file_of_no_bytes(tmp_path: Path, *, by_git: bool) -> None:
    file = opened(tmp_path / "f", b"", by_git=by_git)
    assert file.is_whole
    assert file.take() is None
    found = file.finish()
    assert (found.size, found.sha256) == (0, hashlib.sha256().hexdigest())
    assert found.git_sha1 == ("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" if by_git else "")
    file.forget()
    assert (tmp_path / "f").read_bytes() == b""


def test_what_goes_beyond_a_piece_is_dropped(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    first, second = taken(file), taken(file)
    assert write_next(file, first, LIMITS.segment - 1) == LIMITS.segment - 1
    assert file.write(first, CONTENT[first.end - 1 : first.end] + b"beyond") == 1
    assert file.write(first, b"beyond") == 0
    assert write_next(file, second, 5) == 5
    file.close()
    assert (tmp_path / "f").read_bytes()[: LIMITS.segment + 5] == CONTENT[: LIMITS.segment + 5]


def test_a_piece_that_is_given_up_is_the_next_to_be_taken(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    first, second = taken(file), taken(file)
    write_next(file, first, 100)
    assert file.give_back(first) is False
    assert taken(file) is first
    assert (first.start, first.done, second.start) == (0, 100, LIMITS.segment)
    assert file.missing == len(CONTENT) - 100
    file.close()


@pytest.mark.parametrize(
    "end",
    [
        lambda file: file.start_again(0),
        lambda file: file.start_again(0, in_one=True),
        lambda file: file.step_aside(0),
        lambda file: file.close(),
        lambda file: file.forget(),
        lambda file: file.remove(),
    ],
    ids=["start_again", "in_one", "step_aside", "close", "forget", "remove"],
)
def test_a_piece_of_an_attempt_that_is_over_is_not_written(tmp_path: Path, end: Callable[[Partial], object]) -> None:
    file = opened(tmp_path / "f")
    piece = taken(file)
    write_next(file, piece, 10)
    end(file)
    with pytest.raises(SupersededError):
        write_next(file, piece, 10)
    assert file.give_back(piece) is False
    assert piece.done == 10
    file.close()
    file.close()


def test_an_attempt_ends_once(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    assert [file.start_again(0), file.start_again(0), file.generation] == [True, False, 1]
    assert [file.step_aside(0), file.step_aside(1), file.step_aside(1)] == [False, True, False]
    assert file.take() is None
    assert not file.is_whole
    file.close()
    assert len(noted(tmp_path / "f")[0]) == len(range(0, len(CONTENT), LIMITS.segment))


def test_a_file_that_gives_way_takes_no_room_and_does_not_touch_what_has_its_name(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    write_next(file, taken(file), 10)
    assert file.step_aside(0)
    assert (file.missing, (tmp_path / "f").stat().st_size) == (len(CONTENT) - 10, len(CONTENT))
    (tmp_path / "link").hardlink_to(tmp_path / "f")
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(tmp_path / "f")
    for _ in range(2):
        file.give_way()
        file.claim()
        assert file.missing == len(CONTENT)
        assert (tmp_path / "link").stat().st_size == 0
        assert (tmp_path / "f").read_bytes() == b"other"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "link"]


def test_a_second_attempt_has_a_hash_of_its_own(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    assert bring(file, CONTENT[::-1]) == 1
    assert file.finish().sha256 == of_bytes(CONTENT[::-1]).sha256
    file.start_again(0)
    assert (file.missing, file.is_whole) == (len(CONTENT), False)
    assert bring(file) == 1
    assert file.finish().sha256 == of_bytes(CONTENT).sha256
    assert noted(tmp_path / "f")[0][:2] == [LIMITS.segment] * 2
    file.start_again(1, in_one=True)
    assert bring(file) == 1
    assert file.finish().sha256 == of_bytes(CONTENT).sha256
    assert noted(tmp_path / "f") == ([len(CONTENT)], [0])
    file.close()


def test_bytes_of_an_old_attempt_do_not_come_into_the_new_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between writing a block and hashing it the file may start again, and wait for just these bytes."""
    file = opened(tmp_path / "f")
    plain = file._hash

    def start_again_first(*args: object) -> None:
        monkeypatch.undo()
        assert file.start_again(0)
        plain(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(file, "_hash", start_again_first)
    piece = taken(file)
    assert write_next(file, piece, 10, CONTENT[::-1]) == 10
    bring(file)
    assert file.finish().sha256 == of_bytes(CONTENT).sha256
    file.close()


def test_a_file_that_closes_between_writing_and_hashing_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(tmp_path / "f")
    plain = file._hash

    def close_first(*args: object) -> None:
        assert file.step_aside(0)
        plain(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(file, "_hash", close_first)
    assert write_next(file, taken(file), 10) == 10


def test_a_closed_file_is_not_finished(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    bring(file)
    file.finish()
    file.close()
    with pytest.raises(SupersededError):
        file.finish()


def test_closing_ends_a_long_hash(tmp_path: Path) -> None:
    """Whoever finishes a large file must not hold up the end of the run."""
    file = opened(tmp_path / "f")
    bring(file)
    file.close()
    again = opened(tmp_path / "f")
    plain = again._catch_up
    steps: list[int] = []

    def step() -> int:
        steps.append(plain())
        again._is_closing = len(steps) == 3
        return steps[-1]

    again._catch_up = step  # type: ignore[method-assign]
    with pytest.raises(SupersededError):
        again.finish()
    assert steps == [LIMITS.least_block] * 3
    again.close()


def test_what_an_earlier_run_left_is_gone_on_with_and_hashed(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    for length in (LIMITS.segment, 5000, 1, 0):
        write_next(file, taken(file), length)
    file.close()
    again = opened(tmp_path / "f")
    assert again.resumed == LIMITS.segment + 5001
    assert again.missing == len(CONTENT) - again.resumed
    assert bring(again) == 1
    assert again.finish().sha256 == of_bytes(CONTENT).sha256
    again.close()
    whole = opened(tmp_path / "f")
    assert (whole.is_whole, whole.take(), whole.resumed) == (True, None, len(CONTENT))
    assert whole.finish().sha256 == of_bytes(CONTENT).sha256
    whole.close()


def test_a_file_of_another_length_or_identity_is_no_start(tmp_path: Path) -> None:
    for identity, size in (("b" * 64, len(CONTENT)), (IDENTITY, len(CONTENT) - 1)):
        file = opened(tmp_path / "f")
        bring(file)
        file.close()
        other = Partial(tmp_path / "f", identity, size, by_git=False, limits=LIMITS, watch=None)
        assert (other.resumed, other.missing) == (0, size)
        other.remove()


CHILD = """
import os, sys
from pathlib import Path
from dsv4_stack.guest.download import partial
from dsv4_stack.guest.download.limits import Limits
size, segment, block, sync, last = map(int, sys.argv[2:])
plain, calls = os.pwrite, 0
def pwrite(*args):
    global calls
    calls += 1
    if calls == last:
        plain(args[0], args[1][: len(args[1]) // 2], args[2])  # torn
        os.kill(os.getpid(), 9)
    return plain(*args)
partial.os.pwrite = pwrite
limits = Limits(segment=segment, block=block, sync=sync)
file = partial.Partial(Path(sys.argv[1]), "a" * 64, size, by_git=False, limits=limits, watch=None)
content = sys.stdin.buffer.read()
pieces = list(iter(file.take, None))
while pieces:
    for piece in pieces:
        offset = piece.start + piece.done
        file.write(piece, content[offset : min(offset + block, piece.end)])
        file.flush_if_due()
    pieces = [piece for piece in pieces if not piece.is_done]
"""


@pytest.mark.parametrize("calls", [1, 2, 11, 40])
def test_a_killed_run_loses_nothing_that_it_noted(tmp_path: Path, calls: int) -> None:
    """It writes a block, then its mark, and dies in the middle of either."""
    numbers = [len(CONTENT), LIMITS.segment, LIMITS.block, 24 * KIB, calls]
    command = [sys.executable, "-c", CHILD, str(tmp_path / "f"), *map(str, numbers)]
    done = subprocess.run(command, input=CONTENT, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    file = opened(tmp_path / "f")
    assert file.resumed <= len(CONTENT)
    # Two calls for a block, and now and then one for what was flushed.
    assert file.resumed >= (calls // 2 - 1 - calls // 12) * LIMITS.block
    before = file.missing
    written = 0
    while piece := file.take():
        while not piece.is_done:
            written += write_next(file, piece, 3000)
        file.give_back(piece)
    assert written == before
    assert file.finish().sha256 == of_bytes(CONTENT).sha256
    file.forget()
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_after_a_reboot_only_what_was_flushed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path / "f", limits=replace(LIMITS, sync=6000))
    first, second = taken(file), taken(file)
    write_next(file, first, 5999)
    file.flush_if_due()
    assert noted(tmp_path / "f")[1][:2] == [0, 0]
    write_next(file, second, 1)
    file.flush_if_due()
    write_next(file, first, 500)
    file.close()
    done, flushed = noted(tmp_path / "f")
    assert (done[:3], flushed[:3]) == ([6499, 1, 0], [5999, 1, 0])
    # A run that only opens and leaves it has not brought it to the disk.
    opened(tmp_path / "f").close()
    assert noted(tmp_path / "f") == (done, flushed)
    monkeypatch.setattr(marks, "boot_id", lambda: "another")
    again = opened(tmp_path / "f")
    assert again.resumed == 6000
    again.close()
    assert noted(tmp_path / "f") == (flushed, flushed)


def test_after_a_flush_that_failed_only_what_was_flushed_before_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports it once, and takes the pages for written then."""
    file = opened(tmp_path / "f")
    piece = taken(file)
    write_next(file, piece, 3000)
    file.flush()
    write_next(file, piece, 2000)

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(partial.os, "fdatasync", fail)
        with pytest.raises(Dsv4Error, match=r"f cannot be written: Input/output error") as caught:
            file.flush()
    assert type(caught.value) is Dsv4Error
    write_next(file, piece, 1000)
    file.flush()
    file.close()
    assert [numbers[:2] for numbers in noted(tmp_path / "f")] == [[3000, 0], [3000, 0]]
    again = opened(tmp_path / "f")
    assert again.resumed == 3000
    bring(again)
    with monkeypatch.context() as patch:
        patch.setattr(partial.os, "fsync", fail)
        with pytest.raises(Dsv4Error):
            again.finish()
    again.close()
    last = opened(tmp_path / "f")
    assert last.resumed == 3000
    bring(last)
    assert last.finish().sha256 == of_bytes(CONTENT).sha256
    last.close()


def test_others_write_and_close_while_one_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened(tmp_path / "f")
    piece = taken(file)
    write_next(file, piece, 100)
    inside, go_on = threading.Event(), threading.Event()

    def slow(_file: int) -> None:
        inside.set()
        assert go_on.wait(5)

    monkeypatch.setattr(partial.os, "fdatasync", slow)
    thread = threading.Thread(target=file.flush)
    thread.start()
    assert inside.wait(5)
    assert write_next(file, piece, 100) == 100
    assert file.start_again(0)
    file.close()
    go_on.set()
    thread.join(5)
    assert noted(tmp_path / "f") == ([0] * 10, [0] * 10)


def test_the_watch_sees_the_start_grow_until_it_has_seen_enough(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(available: int, read: Callable[[int, int], bytes]) -> bool:
        seen.append(available)
        assert read(0, available) == CONTENT[:available]
        return available > 9000

    file = opened(tmp_path / "f", watch=watch)
    first, second = taken(file), taken(file)
    for piece, length in ((second, 4000), (first, 4000), (first, 4000), (second, 1), (first, 4000), (first, 4000)):
        write_next(file, piece, length)
    assert seen == [0, 4000, 8000, 8000, 12000]
    assert file.start_again(0)
    bring(file)
    assert seen[5:] == [3000, 6000, 9000, 12000]
    assert file.finish().sha256 == of_bytes(CONTENT).sha256
    assert len(seen) == 9
    file.close()


def test_what_the_watch_raises_reaches_who_writes_and_who_finishes(tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(available: int, _read: Callable[[int, int], bytes]) -> bool:
        seen.append(available)
        raise IntegrityError("no good", "take another")

    file = opened(tmp_path / "f", watch=watch)
    first, second = taken(file), taken(file)
    for piece in (first, second):
        with pytest.raises(IntegrityError, match="no good"):
            write_next(file, piece, 10)
        assert piece.done == 10
    with pytest.raises(IntegrityError, match="no good"):
        file.finish()
    assert seen == [10]
    assert file.start_again(0)
    with pytest.raises(IntegrityError, match="no good"):
        write_next(file, taken(file), 20)
    assert seen == [10, 20]
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_short_file_is_watched_when_it_is_finished(tmp_path: Path) -> None:
    seen: list[int] = []
    file = opened(tmp_path / "f", b"", watch=lambda available, _read: bool(seen.append(available)))
    file.finish()
    assert seen == [0]
    file.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "f").symlink_to(tmp_path / "precious")
    with pytest.raises(Dsv4Error) as caught:
        opened(tmp_path / "f")
    assert caught.value.message == f"{tmp_path / 'f'} cannot be written: Too many levels of symbolic links"
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "precious"]


def test_a_file_that_is_proven_is_no_longer_touched_by_who_claims_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claiming changes its time, and by that time the manifest knows it. Who is at it already is waited for."""
    file = opened(tmp_path / "file")
    bring(file)
    claiming, go_on = threading.Event(), threading.Event()

    def claim(_file: int, _size: int) -> bool:
        claiming.set()
        return go_on.wait(5)

    monkeypatch.setattr(partial.space, "claim", claim)
    with ThreadPoolExecutor() as pool:
        claimed = pool.submit(file.claim)
        assert claiming.wait(5)
        finished = pool.submit(file.finish)
        assert not finished.done()
        go_on.set()
        assert claimed.result(5) is None
        assert finished.result(5).sha256 == of_bytes(CONTENT).sha256
        claiming.clear()
        file.claim()
        assert not claiming.is_set()
    file.close()


def test_room_is_claimed_for_all_of_a_file_as_long_as_it_is_open(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    file.claim()
    assert (tmp_path / "f").stat().st_size == len(CONTENT)
    file.close()
    file.claim()


def test_a_file_that_finds_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(partial.space, "claim", full)
    file = opened(tmp_path / "f")
    with pytest.raises(NoSpaceError):
        file.claim()
    file.close()


def test_a_file_whose_marks_find_no_room_is_not_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - numbers
    monkeypatch.setattr(marks.os, "fsync", full)
    with pytest.raises(NoSpaceError):
        opened(tmp_path / "f")
    monkeypatch.undo()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    file = opened(tmp_path / "f")
    assert (file.resumed, file.missing) == (0, len(CONTENT))
    file.close()


def test_marks_that_cannot_be_begun_again_are_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed twice, a number may by then be somebody else's file."""

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = opened(tmp_path / "f")
    monkeypatch.setattr(marks.os, "fsync", full)
    with pytest.raises(NoSpaceError):
        file.start_again(0)
    monkeypatch.undo()
    twins = [os.dup(0) for _ in range(3)]
    file.close()
    for twin in twins:
        os.close(twin)
