"""Start-up on empty caches against kept and imported ones: seconds, and which folders and files it takes."""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

import pytest
from gpu import kernel_caches
from gpu.engines import Engine, EngineFailed, Setting
from gpu.workdir import ARGUMENTS, HOME, PROMPT, Checkpoints, Record

pytestmark = pytest.mark.gpu

LABEL: Final = "dsv4-caches-proof"
# TileLang says when it compiles. vLLM's own JIT monitor also speaks of kernels that Triton finds in its cache.
_COMPILES: Final = re.compile(r"TileLang begins to compile kernel")
# Neither is a kernel: an export leaves locks out, and FlashInfer logs what it loads.
_NO_KERNELS: Final = (".lock", ".log")
FOLDERS: Final = 6
Json = dict[str, Any]


@pytest.fixture(scope="module")
def cold(checkpoints: Checkpoints, work: Path, record: Record) -> Json:
    """The first start, on no caches at all; one that is recorded is not made again."""
    home, recorded = work / HOME, work / "results" / "startup.json"
    if recorded.exists():
        found: Json = json.loads(recorded.read_bytes())["cold"]
        return found
    assert not home.exists(), f"{home} should be empty: this is about the first start"
    begun = time.time()
    start = _start("cold", checkpoints.w4a8, home, work / "logs")
    folders = kernel_caches.folders(home, begun)
    result = {**start, "folders": {name: asdict(folder) for name, folder in folders.items()}}
    record("startup", {"cold": result})
    return result


def test_kept_caches_spare_the_kernels(cold: Json, checkpoints: Checkpoints, work: Path, record: Record) -> None:
    home = work / HOME
    before = kernel_caches.files(home)
    warm = _start("warm", checkpoints.w4a8, home, work / "logs")
    added = kernel_caches.files(home) - before
    record("startup", {"cold": cold, "warm": warm, "added": sorted(map(str, added))})
    assert warm["tokens"] == cold["tokens"]
    assert warm["start_s"] + warm["seconds"] < (cold["start_s"] + cold["seconds"]) / 2


def test_imported_caches_spare_the_kernels(cold: Json, checkpoints: Checkpoints, work: Path, record: Record) -> None:
    """Exported and imported as `dsv4 warm` does it, to the place that they have in every container."""
    home, archive, exported = work / HOME, work / "caches" / "start.tar.gz", work / "caches" / "exported"
    begin = time.monotonic()
    with archive.open("wb") as out:
        _caches("pack", home, stdout=out)
    packed = time.monotonic()
    for old in (exported, Setting(name="", model=home, home=home).temporary):
        shutil.rmtree(old, ignore_errors=True)
    home.rename(exported)
    home.mkdir()
    unpacking = time.monotonic()
    with archive.open("rb") as source:
        _caches("unpack", home, stdin=source)
    unpacked = time.monotonic()
    before = kernel_caches.states(home)
    imported = _start("imported", checkpoints.w4a8, home, work / "logs")
    after = kernel_caches.states(home)
    result = {
        "cold": cold,
        "imported": imported,
        "archive": {
            "files": len(before),
            "bytes": sum(size for _, size, _ in before.values()),
            "packed_bytes": archive.stat().st_size,
            "pack_s": packed - begin,
            "unpack_s": unpacked - unpacking,
        },
        "added": (added := sorted(map(str, after.keys() - before.keys()))),
        "written_again": (again := sorted(str(file) for file in before if after.get(file) != before[file])),
    }
    record("imported", result)
    assert imported["tokens"] == cold["tokens"]
    assert [name for name in [*added, *again] if not name.endswith(_NO_KERNELS)] == []
    assert cold["compiles"] > imported["compiles"] == 0
    assert imported["start_s"] + imported["seconds"] < (cold["start_s"] + cold["seconds"]) / 2


def test_what_each_missing_folder_costs(cold: Json, checkpoints: Checkpoints, work: Path, record: Record) -> None:
    """One start after the other, where the caches lie: FlashInfer builds all anew in another place.

    Of the folders that hold anything those that the first start waited for longest. What is recorded is not measured
    again.
    """
    home, recorded = work / HOME, work / "results" / "missing.json"
    found: dict[str, Json] = json.loads(recorded.read_bytes()) if recorded.exists() else {}
    waited = {name: folder["waited_s"] for name, folder in cold["folders"].items() if folder["bytes"] and name != "."}
    names = ["", *sorted(waited, key=lambda name: -waited[name])[:FOLDERS]]
    for name in names:
        if "tokens" not in found.get(name, {}):
            with kernel_caches.without(home, name):
                log = f"missing {name.replace('/', '-') or 'nothing'}"
                found[name] = _outcome(log, checkpoints.w4a8, home, work / "logs")
            record("missing", found)
    assert {name: found[name].get("tokens") for name in names} == dict.fromkeys(names, cold["tokens"])


def _caches(way: str, home: Path, **streams: BinaryIO) -> None:
    command = [sys.executable, "-m", "dsv4_stack.guest", "caches", way, str(home), "--label", LABEL]
    subprocess.run(command, check=True, timeout=120, **streams)


def _start(name: str, model: Path, home: Path, logs: Path) -> Json:
    """One engine's start, its first answer and its second to a prompt of the same length."""
    with Engine(Setting(name=name, model=model, home=home, arguments=ARGUMENTS), logs) as engine:
        answer = engine.ready(500)
        answer |= engine.generate(PROMPT)
        again_s = engine.generate(PROMPT, seed=2)["seconds"]
        lines = engine.log.read_text(errors="replace").splitlines()
        return answer | {"again_s": again_s, "compiles": sum(bool(_COMPILES.search(line)) for line in lines)}


def _outcome(name: str, model: Path, home: Path, logs: Path) -> Json:
    try:
        return _start(name, model, home, logs)
    except EngineFailed as failure:
        return {"error": failure.error}
