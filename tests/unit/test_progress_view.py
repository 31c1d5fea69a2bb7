"""A moment of a run: its line, its fields, its screen at every width."""

import io
from dataclasses import replace

import pytest
from helpers.screen import shown
from hypothesis import example, given
from hypothesis import strategies as st

from dsv4_stack.guest.checkpoint import progress_view
from dsv4_stack.guest.checkpoint.progress_view import duration, fitted, is_progress, portion, shortened, speed
from dsv4_stack.guest.checkpoint.tally import Moving, Snapshot
from dsv4_stack.guest.terminal import Block

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NOW = Snapshot(
    files=3,
    all_files=9,
    done=round(61.25 * GIB),
    size=159 * GIB,
    reused=12 * GIB,
    rate=410.4 * MIB,
    stalled_s=0.0,
    elapsed_s=100.0,
)
SHARD = Moving(path="model-00001-of-00046.safetensors", done=2 * GIB, size=5 * GIB, rate=12.34 * MIB)
CONFIG = Moving(path="config.json", done=KIB, size=KIB, rate=0.0)


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (NOW, "3/9 files, 61.2/159.0 GiB (38 %), 410 MiB/s, 4m04s left, 12.0 GiB reused"),
        (replace(NOW, reused=0), "3/9 files, 61.2/159.0 GiB (38 %), 410 MiB/s, 4m04s left"),
        (replace(NOW, stalled_s=17.2), "3/9 files, 61.2/159.0 GiB (38 %), stalled for 17s, 12.0 GiB reused"),
        (replace(NOW, done=0, reused=0, rate=0.0), "3/9 files, 0/159.0 GiB (0 %), 0 bytes/s"),
        (replace(NOW, done=NOW.size - 1), "3/9 files, 159.0/159.0 GiB (99 %), 410 MiB/s, 0s left, 12.0 GiB reused"),
        (replace(NOW, done=NOW.size), "3/9 files, 159.0/159.0 GiB (100 %), 410 MiB/s, 12.0 GiB reused"),
        (
            replace(NOW, files=0, all_files=1, done=100 * KIB, size=25 * MIB, rate=2048.0, reused=515),
            "0/1 file, 100.0 KiB/25.0 MiB (0 %), 2.0 KiB/s, 3h32m left, 515 bytes reused",
        ),
    ],
)
def test_lines(now: Snapshot, line: str) -> None:
    assert progress_view.line(now) == line
    assert is_progress(f"materialize: {line}")


def test_a_summary_says_how_long_it_took() -> None:
    whole = replace(NOW, files=9, done=NOW.size, elapsed_s=397.0)
    line = "9/9 files, 159.0/159.0 GiB (100 %), 410 MiB/s, took 6m37s, 12.0 GiB reused"
    assert progress_view.summary(whole) == line
    assert is_progress(f"materialize: {line}")


@pytest.mark.parametrize(
    "line",
    [
        "3/9 files, 61.2/159.0 GiB (38 %)",
        "materialize: 9 files to fetch, 159.0 GiB; 0 are there",
        "materialize: config.json, 1.5 KiB",
        "materialize: 1/2 files.json, 1.5 KiB",
        "materialize: fetched 9 files, /m holds 9 files, 159.0 GiB (w4a8)",
        "error: materialize: 3/9 files, ",
    ],
)
def test_other_lines_are_no_progress(line: str) -> None:
    assert not is_progress(line)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "materialize: 3/9 files, 61.2/159.0 GiB (38 %), 410 MiB/s, 4m04s left"),
        (68, "materialize: 3/9 files, 61.2/159.0 GiB (38 %), 410 MiB/s, 4m04s left"),
        (67, "materialize: 3/9 files, 61.2/159.0 GiB (38 %), 410 MiB/s"),
        (23, "materialize: 3/9 files"),
        (10, "materializ"),
        (0, ""),
    ],
)
def test_a_line_loses_its_last_parts_first(width: int, line: str) -> None:
    assert fitted(f"materialize: {progress_view.line(NOW)}", width) == line


def test_the_fields_for_programs() -> None:
    now = replace(NOW, moving=(SHARD, CONFIG))
    fields = {
        "files": 3,
        "all_files": 9,
        "bytes": NOW.done,
        "all_bytes": 159 * GIB,
        "reused_bytes": 12 * GIB,
        "rate": 430_335_590,
        "eta_s": 243.9,
        "stalled_s": 0.0,
        "in_progress": {
            "model-00001-of-00046.safetensors": {"bytes": 2 * GIB, "size": 5 * GIB},
            "config.json": {"bytes": KIB, "size": KIB},
        },
    }
    assert progress_view.fields(now) == fields
    assert progress_view.fields(replace(now, stalled_s=16.04)) == fields | {"eta_s": None, "stalled_s": 16.0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (45, "45s"), (372, "6m12s"), (3600, "1h00m"), (3725, "1h02m"), (90000, "25h00m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("done", "size", "text"),
    [
        (0, 0, "0/0 bytes"),
        (0, 159 * GIB, "0/159.0 GiB"),
        (1, 515, "1/515 bytes"),
        (MIB, 159 * GIB, "1.0 MiB/159.0 GiB"),
        (61 * GIB, 159 * GIB, "61.0/159.0 GiB"),
        (700, 2 * KIB, "700 bytes/2.0 KiB"),
    ],
)
def test_portions(done: int, size: int, text: str) -> None:
    assert portion(done, size) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0, "0 bytes/s"),
        (999.9, "999 bytes/s"),
        (1.5 * KIB, "1.5 KiB/s"),
        (99.94 * MIB, "99.9 MiB/s"),
        (1023.4 * MIB, "1023 MiB/s"),
        (2.5 * GIB, "2.5 GiB/s"),
    ],
)
def test_speeds(rate: float, text: str) -> None:
    assert speed(rate) == text


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (32, "model-00001-of-00046.safetensors"),
        (31, "model-00001-of...46.safetensors"),
        (12, "model...sors"),
        (4, "m..."),
        (3, "..."),
        (2, ".."),
        (0, ""),
    ],
)
def test_names_are_shortened_in_the_middle(width: int, text: str) -> None:
    assert shortened("model-00001-of-00046.safetensors", width) == text


def test_a_wide_screen() -> None:
    assert progress_view.screen(replace(NOW, moving=(CONFIG, SHARD)), 120, 24) == [
        f"[{'#' * 11}{' ' * 19}]   38 %  61.2/159.0 GiB  4m04s left  410 MiB/s  3/9 files  12.0 GiB reused",
        "  model-00001-of-00046.safetensors   40 %    12.3 MiB/s",
        "  config.json                       100 %     0 bytes/s",
    ]


def test_a_screen_of_80_columns() -> None:
    assert progress_view.screen(replace(NOW, moving=(CONFIG, SHARD)), 80, 24) == [
        "[#######             ]   38 %  61.2/159.0 GiB  4m04s left  410 MiB/s  3/9 files",
        "  model-00001-of-00046.safetensors   40 %    12.3 MiB/s",
        "  config.json                       100 %     0 bytes/s",
    ]


def test_a_screen_of_40_columns() -> None:
    assert progress_view.screen(replace(NOW, moving=(CONFIG, SHARD)), 40, 24) == [
        "[#####         ]   38 %  61.2/159.0 GiB",
        "  model-0...ensors   40 %    12.3 MiB/s",
        "  config.json       100 %     0 bytes/s",
    ]


def test_a_screen_of_20_columns() -> None:
    assert progress_view.screen(replace(NOW, moving=(CONFIG, SHARD)), 20, 24) == [
        "[###       ]   38 %",
        "  mode...ors   40 %",
        "  conf...son  100 %",
    ]


def test_a_stalled_screen() -> None:
    (line,) = progress_view.screen(replace(NOW, stalled_s=17), 120, 24)
    bar = f"[{'#' * 11}{' ' * 19}]"
    assert line == f"{bar}   38 %  61.2/159.0 GiB  stalled for 17s  3/9 files  12.0 GiB reused"


def test_the_eight_largest_files_are_shown_and_no_more_than_there_are_rows() -> None:
    files = tuple(Moving(path=f"{number:02}", done=1, size=number % 10 + 1, rate=0.0) for number in range(24))
    names = [line.split()[0] for line in progress_view.screen(replace(NOW, moving=files), 80, 24)[1:]]
    assert names == ["09", "19", "08", "18", "07", "17", "06", "16"]
    for rows in range(12):
        assert len(progress_view.screen(replace(NOW, moving=files), 80, rows)) == min(9, max(rows - 1, 0))


SIZES = st.integers(0, 10**13)
MOVING = st.builds(Moving, path=st.text(max_size=60), done=SIZES, size=SIZES, rate=st.floats(0, 1e12))
SNAPSHOTS = st.builds(
    Snapshot,
    files=st.integers(0, 99999),
    all_files=st.integers(0, 99999),
    done=SIZES,
    size=SIZES,
    reused=SIZES,
    rate=st.floats(0, 1e12),
    stalled_s=st.floats(0, 1e6),
    elapsed_s=st.floats(0, 1e6),
    moving=st.lists(MOVING, max_size=10).map(tuple),
).map(lambda now: replace(now, done=min(now.done, now.size)))


@given(SNAPSHOTS, st.integers(0, 200), st.integers(0, 30))
@example(Snapshot(files=0, all_files=1, done=0, size=1, reused=0, rate=2e-313, stalled_s=0, elapsed_s=0), 80, 2)
def test_a_screen_fits_its_terminal(now: Snapshot, columns: int, rows: int) -> None:
    lines = progress_view.screen(now, columns, rows)
    assert len(lines) <= max(rows - 1, 0)
    assert max(map(len, lines), default=0) <= max(columns - 1, 0)
    assert all(line.isascii() and (line.isprintable() or not line) for line in lines)


@given(SNAPSHOTS, st.integers(0, 200))
def test_a_line_fits_its_terminal(now: Snapshot, width: int) -> None:
    line = f"materialize: {progress_view.line(now)}"
    assert is_progress(line)
    assert line.startswith(fitted(line, width))
    assert len(fitted(line, width)) <= width


@given(SNAPSHOTS, SNAPSHOTS, st.integers(2, 100), st.integers(1, 15), st.lists(st.sampled_from("ab"), max_size=20))
def test_a_block_is_erased_wherever_it_stands(
    first: Snapshot, second: Snapshot, columns: int, rows: int, said: list[str]
) -> None:
    stream = io.StringIO()
    block = Block(stream)
    for text in ["before", *said]:
        block.say(text)
        block.draw(progress_view.screen(first, columns, rows))
        block.draw(progress_view.screen(second, columns, rows))
    below = [line.rstrip() for line in progress_view.screen(second, columns, rows)]
    lines, cursor = shown(stream.getvalue().replace("\n", "\r\n"), max(columns, 6), rows)
    assert lines[: cursor[0]] == ["before", *said, *below]
    block.draw(())
    lines, cursor = shown(stream.getvalue().replace("\n", "\r\n"), max(columns, 6), rows)
    assert cursor == (len(said) + 1, 0)
    assert [line for line in lines if line] == ["before", *said]
