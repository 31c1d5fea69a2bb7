"""How long each of vLLM's loaders takes for a large checkpoint, its files in the page cache and not.

`DSV4_GPU_LAYERS` sets its size, some 3.4 GB a layer. By themselves fastsafetensors (without GDS) and instanttensor read
past the page cache, so where it is filled they are told to read through it. First all engines import vLLM; then one
after the other loads, and is ended when it has the weights. One load goes before, for what the first one does more than
the others, and one goes on until it has the whole model. The seconds are those that vLLM logs.
"""

import importlib.metadata
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from gpu import pages
from gpu.engines import Engine, EngineFailed, Setting
from gpu.workdir import ARGUMENTS, Record, make_checkpoints, shared_home

pytestmark = pytest.mark.gpu

LOADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lazy": {"safetensors_load_strategy": "lazy"},
    "prefetch": {"safetensors_load_strategy": "prefetch"},
    "fastsafetensors": {"load_format": "fastsafetensors"},
    "instanttensor": {"load_format": "instanttensor"},
}
BUFFERED: Final = {"FASTSAFETENSORS_ODIRECT": "0", "INSTANTTENSOR_BACKEND": "BUFFERED"}
# It then says which back end it chose, and little else.
SPEAKING: Final = {"INSTANTTENSOR_DEBUG": "1"}
FIRST: Final = "first"
WHOLE: Final = "lazy-warm"
LIMIT_S: Final = 300
_SECONDS: Final = {
    "weights_s": re.compile(r"Loading weights took ([\d.]+) seconds"),
    "model_s": re.compile(r"Model loading took [\d.]+ GiB memory and ([\d.]+) seconds"),
}
# Nothing of it in the log of fastsafetensors: it reads with GDS.
_BACK_END: Final = re.compile(
    r"Using backend \w+|GDS device node \S+ not found|libcufile.so does not exist|GDS is not supported|"
    r"GDS file-handle setup failed|GDS not enabled|filesystem rejected O_DIRECT|using buffered reads"
)


def test_loaders(work: Path, record: Record) -> None:
    model = make_checkpoints(work, "large", "--layers", os.environ.get("DSV4_GPU_LAYERS", "8"), "--experts", "256")
    files = sorted(model.w4a8.glob("*.safetensors"))
    result: dict[str, Any] = {
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
        "versions": {name: _version(name) for name in ("safetensors", "fastsafetensors", "instanttensor")},
    }
    rows = []
    with ExitStack() as running:
        engines = [running.enter_context(Engine(setting, work / "logs")) for setting in _settings(model.w4a8, work)]
        for engine in engines:
            engine.answer(300)
        for engine in engines:
            row = _row(engine, files)
            if engine.name != FIRST:
                rows.append(row)
                record("loaders", {**result, "rows": rows})
    assert [row["name"] for row in rows if "error" in row] == []
    resident = {row["name"]: row["resident_before"] for row in rows}
    wrong = {name: part for name, part in resident.items() if not (part < 0.01 if _cold(name) else part > 0.99)}
    assert wrong == {}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _settings(model: Path, work: Path) -> Sequence[Setting]:
    """Cold ones before warm ones, as the last of them leaves the files in memory or not."""

    def setting(name: str, loader: str, variables: Mapping[str, str]) -> Setting:
        return Setting(
            name=name,
            model=model,
            home=shared_home(work),
            arguments={**ARGUMENTS, **LOADERS[loader]},
            variables={**SPEAKING, **variables},
            hold=True,
        )

    cold = [setting(f"{loader}-cold", loader, {}) for loader in LOADERS]
    warm = [setting(f"{loader}-warm", loader, BUFFERED) for loader in LOADERS]
    return [setting(FIRST, "lazy", {}), *cold, *warm]


def _cold(name: str) -> bool:
    return name.endswith("-cold")


def _row(engine: Engine, files: Sequence[Path]) -> dict[str, Any]:
    (pages.evict if _cold(engine.name) else pages.fill)(files)
    row = {"name": engine.name, "resident_before": pages.resident(files)}
    row |= _load(engine, "model_s" if engine.name in (FIRST, WHOLE) else "weights_s")
    engine.end()
    return {**row, "back_end": _back_end(engine.log), "resident_after": pages.resident(files)}


def _load(engine: Engine, until: str) -> dict[str, Any]:
    begin = time.monotonic()
    engine.go()
    while engine.process.poll() is None and time.monotonic() - begin < LIMIT_S:
        log = engine.log.read_text(errors="replace")
        found = {name: float(match[1]) for name, line in _SECONDS.items() if (match := line.search(log))}
        if until in found:
            return {"waited_s": time.monotonic() - begin, **found}
        time.sleep(0.1)
    try:
        engine.answer(1)
    except EngineFailed as failure:
        return {"error": failure.error}
    return {"error": "it was ready, and its log does not say in how many seconds"}


def _back_end(log: Path) -> list[str]:
    return list(dict.fromkeys(_BACK_END.findall(log.read_text(errors="replace"))))
