"""Hashing what is there already, in a process of its own: it is said, and a signal ends it."""

import json
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.process import ROOT
from helpers.wait import wait_until

SHARD = "model.safetensors"
# Of holes: nothing hashes that much in the time that a test has.
SIZE = 1 << 40


def write_source(folder: Path) -> None:
    """Nobody promises a local folder's bytes, so both sides are hashed."""
    folder.mkdir()
    header = json.dumps({"t": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    with (folder / SHARD).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + SIZE)
    (folder / "config.json").write_text("{}\n")


@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--deep",)], ids=" ".join)
def test_a_signal_ends_the_hashing_of_files_that_are_there(tmp_path: Path, flags: tuple[str, ...]) -> None:
    write_source(tmp_path / "source")
    write_source(tmp_path / "dest")
    words = ("materialize", "--base", tmp_path / "source", "--dest", tmp_path / "dest", *flags)
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dsv4_stack.guest", *words], cwd=ROOT / "deploy", stdout=log, stderr=log
        ) as process,
    ):
        try:
            said = "materialize: 2 files of the right size, to be proven by hashing 2048.0 GiB\n"
            assert wait_until((tmp_path / "log").read_text, timeout_s=60)
            assert (tmp_path / "log").read_text() == said
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert (tmp_path / "log").read_text() == f"{said}interrupted\n"
