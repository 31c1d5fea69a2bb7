"""Fixtures of the GPU tests.

`DSV4_GPU_WORK` names a directory that several runs share; without it each run has its own.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu.workdir import Checkpoints, Patched, Record, make_checkpoints
from helpers.vllm_tree import SERIES

from dsv4_stack.guest.patches import in_effect
from dsv4_stack.guest.patching import series
from dsv4_stack.guest.patching.tree import Tree, find_vllm, release_of


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = Path(os.environ.get("DSV4_GPU_WORK") or tmp_path_factory.mktemp("gpu"))
    for name in ("caches", "checkpoints", "logs", "results"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def record(work: Path) -> Record:
    """Writes a part's result, for gpu/report.py."""

    def write(name: str, result: object) -> None:
        (work / "results" / f"{name}.json").write_text(json.dumps(result, indent=1))

    return write


@pytest.fixture(scope="session", autouse=True)
def machine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Records which GPU the results are of. Seconds are measured, so runs in one directory wait for each other."""
    if not request.config.getoption("--run-gpu"):
        yield
        return
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    found = subprocess.run(query, check=True, capture_output=True, text=True, timeout=60).stdout
    with (request.getfixturevalue("work") / "gpu.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        request.getfixturevalue("record")("machine", {"gpus": found.splitlines(), "cpus": os.cpu_count()})
        yield


@pytest.fixture(scope="session")
def patched() -> Patched:
    tree = find_vllm()
    release = release_of(Tree(root=tree))
    patches = series.needed(series.load(SERIES), release)
    in_effect(tree, patches)
    return Patched(tree=tree, release=release, patches=patches)


@pytest.fixture(scope="session")
def checkpoints(work: Path) -> Checkpoints:
    return make_checkpoints(work, "small", "--layers", "3", "--experts", "16")
