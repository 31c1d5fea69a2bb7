"""A run's report: lines and JSON every few seconds, a bar on a terminal, and files as they are finished."""

import io
import json
import threading
from collections.abc import Callable
from functools import partial

import pytest
from helpers.clock import Clock
from helpers.screen import Terminal, terminal
from helpers.wait import wait_until

from dsv4_stack.guest import terminal as guest_terminal
from dsv4_stack.guest.checkpoint import progress
from dsv4_stack.guest.checkpoint.progress import Progress
from dsv4_stack.guest.checkpoint.tally import Tally

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every tally of a Progress."""
    clock = Clock()
    monkeypatch.setattr(progress, "Tally", partial(Tally, clock=clock))
    return clock


def test_a_short_run_says_its_files_alone(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=False)
    progress.say("start", "2 files to fetch", fetch=2)
    progress.say("quiet", "", of=3)
    with progress.following({"a": 10 * MIB, "b": 5}):
        progress.advance("a", 10 * MIB)
        progress.finished("a", 10 * MIB)
        progress.reuse("b", 5)
        progress.finished("b", 5)
    assert capsys.readouterr() == (
        "",
        "materialize: 2 files to fetch\nmaterialize: a, 10.0 MiB\nmaterialize: b, 5 bytes\n",
    )


def test_json_lines_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(as_json=True)
    progress.say("start", "1 file to fetch", fetch=1)
    with progress.following({"a": 5}):
        progress.finished("a", 5)
    output = capsys.readouterr()
    assert output.err == ""
    assert [json.loads(line) for line in output.out.splitlines()] == [
        {"event": "start", "fetch": 1},
        {"event": "file", "path": "a", "size": 5},
    ]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Waits until a Progress has said its first "progress"; it says no other on its way."""
    said = threading.Event()
    plain = Progress.say

    def say(self: Progress, event: str, text: str, **fields: object) -> None:
        if threading.current_thread().name != "progress":
            plain(self, event, text, **fields)
        elif not said.is_set():
            plain(self, event, text, **fields)
            said.set()

    monkeypatch.setattr(Progress, "say", say)
    return partial(said.wait, 10)


def test_a_long_run_reports_on_its_way_and_in_the_end(clock: Clock, reported: Callable[[], bool]) -> None:
    stream = io.StringIO()
    progress = Progress(as_json=False, stream=stream, every_s=0.01)
    with progress.following({"a": 4 * GIB, "b": GIB}):
        progress.advance("a", GIB)
        clock.now += 10
        assert reported()
        progress.reuse("b", GIB)
        progress.finished("b", GIB)
        progress.advance("a", 3 * GIB)
        clock.now += 10
        progress.finished("a", 4 * GIB)
    lines = stream.getvalue().splitlines()
    # The first report may be older than the clock's step.
    assert lines[0] in (
        "materialize: 0/2 files, 0/5.0 GiB (0 %), 0 bytes/s",
        "materialize: 0/2 files, 1.0/5.0 GiB (20 %), 0 bytes/s",
        "materialize: 0/2 files, 1.0/5.0 GiB (20 %), 102 MiB/s, 40s left",
    )
    assert lines[1:] == [
        "materialize: b, 1.0 GiB",
        "materialize: a, 4.0 GiB",
        "materialize: 2/2 files, 5.0/5.0 GiB (100 %), 205 MiB/s, took 20s, 1.0 GiB reused",
    ]


def test_a_long_run_reports_as_json(
    clock: Clock, reported: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(as_json=True, every_s=0.01)
    with progress.following({"a": 4000}):
        assert reported()
        progress.advance("a", 4000)
        clock.now += 10
        progress.finished("a", 4000)
    first, file, last = map(json.loads, capsys.readouterr().out.splitlines())
    still = {"event": "progress", "files": 0, "all_files": 1, "bytes": 0, "all_bytes": 4000, "reused_bytes": 0}
    assert first == still | {"rate": 0, "eta_s": None, "stalled_s": 0.0, "in_progress": {}}
    assert file == {"event": "file", "path": "a", "size": 4000}
    assert last == first | {"files": 1, "bytes": 4000, "rate": 400, "eta_s": 0.0}


def test_a_run_that_fails_has_no_summary(clock: Clock) -> None:
    stream = io.StringIO()

    def fail(progress: Progress) -> None:
        with progress.following({"a": 4000}):
            clock.now += 100
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(Progress(as_json=False, stream=stream))
    assert stream.getvalue() == ""
    assert "progress" not in {thread.name for thread in threading.enumerate()}


class Gone(io.StringIO):
    """Its reader has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.writer = threading.current_thread()

    def write(self, _text: str) -> int:
        self.writer = threading.current_thread()
        self.asked.set()
        raise BrokenPipeError


def test_nobody_reading_does_not_end_the_run(clock: Clock) -> None:
    stream = Gone()
    progress = Progress(as_json=False, stream=stream, every_s=0.01)
    with progress.following({"a": 4000}):
        assert stream.asked.wait(10)
        assert stream.writer.name == "progress"
        stream.writer.join(10)
        assert not stream.writer.is_alive()
        # Time stands still here, so that no summary is due either.
        assert clock() == 1000.0


@pytest.fixture
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def shows(window: Terminal, *lines: str) -> bool:
    return wait_until(lambda: window.lines() == list(lines), timeout_s=10, interval_s=0.01)


def wrapped(text: str) -> list[str]:
    """In 70 columns."""
    return [text[:70].rstrip(), text[70:]]


@pytest.mark.usefixtures("xterm")
def test_a_bar_is_drawn_below_what_is_said_and_goes(clock: Clock) -> None:
    with terminal(70) as window:
        progress = Progress(as_json=False, stream=window.stream, every_s=0.01)
        progress.say("start", "3 files to fetch")
        with progress.following({"big": 4 * GIB, "middle": 2 * GIB, "small": GIB, "none": GIB}):
            progress.reuse("middle", GIB)
            progress.advance("small", GIB)
            start = "materialize: 3 files to fetch"
            assert shows(
                window,
                start,
                "[######                   ]   25 %  2.0/8.0 GiB  0 bytes/s  0/4 files",
                "  middle   50 %     0 bytes/s",
                "  small   100 %     0 bytes/s",
            ), window.lines()
            clock.now += 10
            progress.finished("small", GIB)
            small = "materialize: small, 1.0 GiB"
            assert shows(
                window,
                start,
                small,
                "[###          ]   25 %  2.0/8.0 GiB  1m00s left  102 MiB/s  1/4 files",
                "  middle   50 %     0 bytes/s",
            ), window.lines()
            progress.say("note", "a text that is longer than this terminal is wide, which says much")
            clock.now += 20
            note = wrapped("materialize: a text that is longer than this terminal is wide, which says much")
            assert shows(
                window,
                start,
                small,
                *note,
                "[####               ]   25 %  2.0/8.0 GiB  stalled for 30s  1/4 files",
                "  middle   50 %     0 bytes/s",
            ), window.lines()
        summary = "materialize: 1/4 files, 2.0/8.0 GiB (25 %), 34.1 MiB/s, took 30s, 1.0 GiB reused"
        end = [start, small, *note, *wrapped(summary)]
        assert shows(window, *end), window.lines()
        assert window.cursor() == (len(end), 0)


@pytest.mark.usefixtures("xterm", "clock")
def test_the_bar_goes_when_a_run_fails() -> None:
    def fail(progress: Progress) -> None:
        with progress.following({"a": 4 * GIB}):
            progress.advance("a", GIB)
            assert shows(window, "[##        ]   25 %", "  a   25 %"), window.lines()
            raise KeyboardInterrupt

    with terminal(20, 5) as window:
        with pytest.raises(KeyboardInterrupt):
            fail(Progress(as_json=False, stream=window.stream, every_s=0.01))
        window.close()
        assert (window.lines(), window.cursor()) == ([], (0, 0))


@pytest.mark.usefixtures("xterm", "clock")
def test_json_lines_leave_a_terminal_alone(
    reported: Callable[[], bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal() as window:
        monkeypatch.setattr("sys.stderr", window.stream)
        with Progress(as_json=True, every_s=0.01).following({"a": 4 * GIB}):
            assert reported()
        window.close()
        assert window.written == ""
    assert json.loads(capsys.readouterr().out)["event"] == "progress"


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_terminal_that_cannot_draw_gets_lines(
    clock: Clock, reported: Callable[[], bool], monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    if term:
        monkeypatch.setenv("TERM", term)
    else:
        monkeypatch.delenv("TERM", raising=False)
    with terminal() as window:
        with Progress(as_json=False, stream=window.stream, every_s=0.01).following({"a": 4 * GIB}):
            assert reported()
        window.close()
        assert window.written == "materialize: 0/1 file, 0/4.0 GiB (0 %), 0 bytes/s\r\n"
    assert clock() == 1000.0


def test_the_size_is_that_of_the_streams_own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setenv("LINES", "33")
    with terminal(120, 40) as window, terminal(0, 0) as unknown:
        assert guest_terminal.size(window.stream) == (120, 40)
        assert guest_terminal.size(unknown.stream) == (77, 33)
    assert guest_terminal.size(io.StringIO()) == (77, 33)
