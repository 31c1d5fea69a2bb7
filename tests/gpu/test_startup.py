"""Start-up on empty caches against kept and imported ones: seconds, and which folders and files it takes."""

import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final

import pytest
from gpu import kernel_caches
from gpu.engines import Engine, Setting
from gpu.workdir import ARGUMENTS, HOME, PROMPT, Checkpoints, Record

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("shared_gpu")]

LABEL: Final = "dsv4-caches-proof"
# TileLang says when it compiles. vLLM's own JIT monitor also speaks of kernels that Triton finds in its cache.
_COMPILES: Final = re.compile(r"TileLang begins to compile kernel")
# Neither is a kernel: an export leaves locks out, and FlashInfer logs what it loads.
_NO_KERNELS: Final = (".lock", ".log")
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


def test_imported_caches_spare_the_kernels(cold: Json, checkpoints: Checkpoints, work: Path, record: Record) -> None:
    """Exported and imported as `dsv4 warm` does it, to the place that they have in every container."""
    home, archive = work / HOME, work / "caches" / "start.tar.gz"
    begin = time.monotonic()
    with archive.open("wb") as out:
        _caches("pack", home, stdout=out)
    packed = time.monotonic()
    home.rename(work / "caches" / "exported")
    shutil.rmtree(Setting(name="", model=home, home=home).temporary)
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


def test_kept_caches_spare_the_kernels(cold: Json, checkpoints: Checkpoints, work: Path, record: Record) -> None:
    home = work / HOME
    before = kernel_caches.files(home)
    warm = _start("warm", checkpoints.w4a8, home, work / "logs")
    added = kernel_caches.files(home) - before
    record("startup", {"cold": cold, "warm": warm, "added": sorted(map(str, added))})
    assert warm["tokens"] == cold["tokens"]
    assert warm["start_s"] + warm["seconds"] < (cold["start_s"] + cold["seconds"]) / 2


def test_what_each_missing_folder_costs(checkpoints: Checkpoints, work: Path, record: Record) -> None:
    """All at a time, beside one that misses nothing: on copies elsewhere, as an import makes them."""
    kept = kernel_caches.folders(work / HOME, begun=0)
    assert kept, "a start on empty caches has to fill them first"
    largest = sorted(kept.keys() - {"."}, key=lambda name: kept[name].bytes, reverse=True)[:6]
    with ExitStack() as running:
        engines = {}
        for number, name in enumerate(["", *largest]):
            home = work / "caches" / f"missing-{number}"
            subprocess.run(["cp", "-a", str(work / HOME), str(home)], check=True)
            if name:
                shutil.rmtree(home / name)
            setting = Setting(name=f"missing-{number}", model=checkpoints.w4a8, home=home, arguments=ARGUMENTS)
            engines[name] = running.enter_context(Engine(setting, work / "logs"))
        found = {name: engine.ready(400) for name, engine in engines.items()}
        for engine in engines.values():
            engine.ask(PROMPT)
        found = {name: found[name] | engine.answer(200) for name, engine in engines.items()}
    record("missing", found)
    tokens = {name: row["tokens"] for name, row in found.items()}
    assert tokens == dict.fromkeys(tokens, tokens[""])


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
