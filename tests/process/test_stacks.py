"""Stacks of running processes, without a debugger: each Python process writes its own, and no other is harmed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.wait import wait_until

from dsv4_stack.guest.serving import processes
from dsv4_stack.guest.serving.engine import HOOKS

PROGRAM = """
import multiprocessing, os, subprocess, time

def one_that_waits():
    os.write(1, b"up\\n")
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    child = context.Process(target=one_that_waits, daemon=True)
    child.start()
    subprocess.Popen(["sleep", "60"])
    one_that_waits()
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A Python process with a forked one and a program that is none of Python's."""
    env = {**os.environ, "PYTHONPATH": str(HOOKS), "DSV4_STACKS": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, process_group=0) as process:
        try:
            assert process.stdout
            # Each of the two says so itself: a forked one is there before it has come so far.
            assert [process.stdout.readline() for _ in range(2)] == [b"up\n"] * 2
            assert wait_until(lambda: len(processes.tree(process.pid)) == 3, timeout_s=60, interval_s=0.02)
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


def test_every_python_process_tells_what_it_is_at_and_no_other_is_harmed(root: int, tmp_path: Path) -> None:
    found = processes.tree(root)
    stacks = processes.stacks(found, tmp_path)
    assert [process.name.split()[0] for process in found] == ["python", "python", "sleep"]
    assert set(stacks) == {found[0].pid, found[1].pid}
    assert all("in one_that_waits" in text for text in stacks.values())
    assert len(processes.tree(root)) == 3


def test_each_time_they_tell_what_is_new(root: int, tmp_path: Path) -> None:
    first = processes.stacks(processes.tree(root), tmp_path)
    again = processes.stacks(processes.tree(root), tmp_path)
    assert first.keys() == again.keys()
    assert all(text.count("Current thread") == 1 for text in again.values())


def test_progress_is_what_is_read_compiled_or_started(root: int, tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    caches.mkdir()
    before = processes.progress(processes.tree(root), caches)
    time.sleep(0.05)
    assert processes.progress(processes.tree(root), caches) == before
    (caches / "kernel").mkdir()
    assert processes.progress(processes.tree(root), caches) != before


def test_a_process_that_is_gone_has_no_tree() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.tree(process.pid) == []
