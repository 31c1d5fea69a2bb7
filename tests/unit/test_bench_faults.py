"""What scripts/bench/faults.py makes of what happened: the matrix, and the promises that were broken."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from harness import checkpoint, disk, matrix
from harness.matrix import Row
from harness.processes import Command, Ended, Process
from harness.scenarios import Outcome, first_error
from helpers.wait import wait_until

from dsv4_stack.guest.checkpoint import tensors

MIB = 1 << 20


def ended(exit_code: int | None, wall_s: float = 1.0, output: str = "") -> Ended:
    return Ended(exit_code=exit_code, wall_s=wall_s, cpu_s=0.0, read_bytes=0, output=output)


def outcome(
    first: int | None,
    *,
    wall_s: float = 1.0,
    kept: int = 0,
    lost: int = 0,
    said: str = "",
    second: int | None = 0,
    again: int = 0,
    is_wrong: bool = False,
    problems: tuple[str, ...] = (),
    orphans: int = 0,
) -> Outcome:
    return Outcome(
        first=ended(first, wall_s),
        said=said,
        needed=32 * MIB,
        kept=kept,
        lost=lost,
        is_wrong=is_wrong,
        second=ended(second),
        again=again,
        problems=problems,
        orphans=orphans,
    )


def row(name: str, exits: set[int], *outcomes: Outcome) -> Row:
    return Row(name=name, exits=frozenset(exits), outcomes=outcomes)


KILLS = row("kill -9, 2 points", {-9, 0}, outcome(-9, kept=MIB), outcome(0, wall_s=2.5, kept=32 * MIB, again=MIB // 2))
STALL = row("stall", {8}, outcome(8, wall_s=8.0, kept=16 * MIB, lost=4096, said="error: no progress"))
SKIPPED = Row(name="full disk", exits=frozenset({7}), outcomes=(), skipped="no root")
HANGS = row(
    "stall", {8}, outcome(None, wall_s=40.0, second=1, problems=("a is missing",), orphans=12 * MIB, lost=9 * MIB)
)
CORRUPT = row(
    "flip", {6}, outcome(0, kept=32 * MIB, is_wrong=True, problems=("a has other bytes", "b", "c", "d"), again=3 * MIB)
)

TEXT = """\
Made with `faults`. 2026-01-01; a machine.

### dsv4 materialize

| fault | exit | s | kept | next run | fetched again | directory then | orphans |
| --- | --- | --- | --- | --- | --- | --- | --- |
| kill -9, 2 points | -9 or 0 | 1.0 to 2.5 | 3 to 100 % | 0 | 0.5 MiB | 2 of 2 bit-exact | 0 MiB |
| stall | 8 | 8.0 | 50 % | 0 | 0 MiB | bit-exact | 0 MiB |
| full disk | not run: no root | — | — | — | — | — | — |

### hf download

| fault | exit | s | kept | next run | fetched again | directory then | orphans |
| --- | --- | --- | --- | --- | --- | --- | --- |
| stall | none in 40 s | 40.0 | 0 % | 1 | 0 MiB | a is missing | 12 MiB |
| flip | 0, with wrong files | 1.0 | 100 % | 0 | 3.0 MiB | a has other bytes; b; and 2 more | 0 MiB |

### What dsv4 materialize said

| fault | said |
| --- | --- |
| kill -9, 2 points | — |
| stall | error: no progress |
| full disk | — |

### What hf download said

| fault | said |
| --- | --- |
| stall | — |
| flip | — |
"""


def test_the_matrix() -> None:
    others = {"hf download": [HANGS, CORRUPT]}
    assert matrix.as_markdown([KILLS, STALL, SKIPPED], others, "2026-01-01; a machine.", "faults") == TEXT


def test_promises_that_hold() -> None:
    assert matrix.failures([KILLS, STALL, SKIPPED]) == []


def test_promises_that_are_broken() -> None:
    assert matrix.failures([HANGS, CORRUPT]) == [
        "stall: exit none in 40 s, not 8",
        "stall: 9437184 bytes that had come before are lost",
        "stall: the next run: exit 1",
        "stall: after the next run: a is missing",
        "stall: after the next run: 12582912 bytes of orphans",
        "flip: exit 0, not 6",
        "flip: wrong files were taken for right ones",
        "flip: after the next run: a has other bytes; b; and 2 more",
    ]


@pytest.mark.parametrize(
    ("exit_code", "output", "line"),
    [
        (8, "materialize: 1 file\nerror: gone\n  next: wait\n", "error: gone"),
        (1, "Traceback:\n  File x\nValueError: bad\n", "ValueError: bad"),
        (1, "Downloading\nError: Not found\nmore\n", "Error: Not found"),
        (1, "", ""),
        (0, "error: it says so, and ends well\n", ""),
        (-9, "half a line", ""),
        (None, "still going", ""),
    ],
)
def test_what_a_tool_said(exit_code: int | None, output: str, line: str) -> None:
    assert first_error(ended(exit_code, output=output)) == line


def test_a_checkpoint_is_one(tmp_path: Path) -> None:
    made = checkpoint.write(tmp_path, "org/name", shards=2, shard_bytes=3000)
    for number, name in enumerate(made.shards):
        tensors.check_file(made.folder / name, {checkpoint.tensor_name(number)}, name)
        assert checkpoint.payload(made.folder / name) == 3000
    assert sorted(made.hashes) == [
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ]
    assert checkpoint.read(made.folder, "org/name") == made
    assert made.size == sum(path.stat().st_size for path in made.folder.iterdir())


def test_a_checkpoint_of_many_tensors_is_one(tmp_path: Path) -> None:
    made = checkpoint.write(tmp_path, "org/name", shards=2, shard_bytes=3000, tensors=20)
    index = json.loads((made.folder / checkpoint.INDEX).read_bytes())
    assert Counter(index["weight_map"].values()) == dict.fromkeys(made.shards, 10)
    for number, name in enumerate(made.shards):
        tensors.check_file(made.folder / name, checkpoint.tensor_names(number, 10), name)
        assert checkpoint.payload(made.folder / name) == 3000


def test_a_folder_is_compared_byte_for_byte(tmp_path: Path) -> None:
    made = checkpoint.write(tmp_path, "org/name", shards=2, shard_bytes=3000)
    copy = tmp_path / "copy"
    shutil.copytree(made.folder, copy)
    assert checkpoint.problems(made, copy) == []
    shard = copy / made.shards[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    (copy / "config.json").unlink()
    assert checkpoint.problems(made, copy) == ["config.json is missing", f"{made.shards[1]} has other bytes"]


def test_claimed_bytes_are_not_written_ones(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "partial"
    path.parent.mkdir()
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 10)
        os.pwrite(file.fileno(), b"x" * 8192, 16 << 10)
    assert disk.written(tmp_path) == 8192
    assert disk.allocated([tmp_path]) == 64 << 10


def test_orphans_are_what_is_too_large_for_a_record(tmp_path: Path) -> None:
    for name, size in {"wanted": 100_000, "record": 65536, "partial": 65537, "deep/partial": 100_000}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert disk.orphans(tmp_path, ["wanted"]) == 165537


def test_a_process_is_measured_and_nothing_of_it_stays(tmp_path: Path) -> None:
    words = ("sh", "-c", "echo $X; sleep 100 & echo $! >$PID; exit 3")
    command = Command(words=words, env={"X": "said", "PID": str(tmp_path / "pid")})
    with Process(command, tmp_path / "log") as process:
        done = process.end(30)
        left = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
        assert left.exists()
    assert (done.exit_code, done.output) == (3, "said\n")
    assert 0 < done.wall_s < 30
    assert wait_until(lambda: has_ended(left), timeout_s=10, interval_s=0.01)


def has_ended(stat: Path) -> bool:
    try:
        return stat.read_text().split()[2] in "ZX"
    except OSError:
        return True


def test_a_process_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with Process(Command(words=("sleep", "100"), env={}), tmp_path / "log") as process:
        assert process.is_running()
        assert process.end(0.01).exit_code is None
    assert not process.is_running()
