"""How long each of vLLM's loaders takes for a large checkpoint, its files in the page cache and not.

`DSV4_GPU_LAYERS` sets its size, some 3.4 GB a layer. Engines are ended when they have loaded, before they compile
anything; the seconds are those that vLLM logs.
"""

import fcntl
import importlib.metadata
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from gpu import pages
from gpu.engines import Engine, EngineFailed, Setting
from gpu.workdir import ARGUMENTS, Record, locked, make_checkpoints

pytestmark = pytest.mark.gpu

LOADERS: Final[dict[str, dict[str, Any]]] = {
    "lazy": {"safetensors_load_strategy": "lazy"},
    "prefetch": {"safetensors_load_strategy": "prefetch"},
    "fastsafetensors": {"load_format": "fastsafetensors"},
    "instanttensor": {"load_format": "instanttensor"},
}
STATES: Final = ("cold", "warm")
LIMIT_S: Final = 300
_WEIGHTS: Final = re.compile(r"Loading weights took ([\d.]+) seconds")
_MODEL: Final = re.compile(r"Model loading took ([\d.]+) GiB memory and ([\d.]+) seconds")


def test_loaders(work: Path, record: Record) -> None:
    model = make_checkpoints(work, "large", "--layers", os.environ.get("DSV4_GPU_LAYERS", "12"), "--experts", "256")
    files = sorted(model.w4a8.glob("*.safetensors"))
    result: dict[str, Any] = {
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
        "versions": {name: _version(name) for name in ("safetensors", "fastsafetensors", "instanttensor")},
    }
    rows = []
    for row in _rows(list(_settings(model.w4a8, work)), files, work):
        rows.append(row)
        record("loaders", {**result, "rows": rows})
    assert [row["name"] for row in rows if "error" in row] == []


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _settings(model: Path, work: Path) -> Iterator[Setting]:
    """Cold ones first, as the last of them leaves the files in memory or not."""
    for state in STATES:
        for loader, arguments in LOADERS.items():
            yield Setting(
                name=f"{loader}-{state}",
                model=model,
                home=work / "caches" / "loaders",
                arguments={**ARGUMENTS, **arguments},
                hold=True,
            )


def _rows(settings: Sequence[Setting], files: Sequence[Path], work: Path) -> Iterator[dict[str, Any]]:
    """One engine after the other; the next one imports vLLM meanwhile."""
    with ExitStack() as running:
        following = running.enter_context(Engine(settings[0], work / "logs"))
        for at, setting in enumerate(settings):
            engine = following
            imported = engine.answer(300)
            if at + 1 < len(settings):
                following = running.enter_context(Engine(settings[at + 1], work / "logs"))
            with locked(work / "gpu.lock", fcntl.LOCK_EX):
                (pages.evict if setting.name.endswith("-cold") else pages.fill)(files)
                row = {"name": setting.name, **imported, "resident_before": pages.resident(files)}
                row |= _load(engine)
            engine.end()
            yield row | {"resident_after": pages.resident(files)}


def _load(engine: Engine) -> dict[str, Any]:
    begin = time.monotonic()
    engine.go()
    while engine.process.poll() is None and time.monotonic() - begin < LIMIT_S:
        log = engine.log.read_text(errors="replace")
        if (weights := _WEIGHTS.search(log)) and (model := _MODEL.search(log)):
            return {"waited_s": time.monotonic() - begin, "weights_s": float(weights[1]), "model_s": float(model[2])}
        time.sleep(0.1)
    try:
        engine.answer(1)
    except EngineFailed as failure:
        return {"error": failure.error}
    return {"error": "it was ready, and its log does not say in how many seconds"}
