"""Start-up on empty caches against kept ones: seconds to ready and to the first answer, and which folders it takes."""

import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from gpu import kernel_caches
from gpu.engines import Engine, Setting
from gpu.workdir import ARGUMENTS, HOME, PROMPT, Checkpoints, Record

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("shared_gpu")]


def test_kept_caches_spare_the_kernels(checkpoints: Checkpoints, work: Path, record: Record) -> None:
    home = work / HOME
    assert not home.exists(), f"{home} should be empty: this is about the first start"
    begun = time.time()
    cold = _start("cold", checkpoints.w4a8, home, work / "logs")
    folders = kernel_caches.folders(home, begun)
    result = {"cold": cold, "folders": {name: asdict(folder) for name, folder in folders.items()}}
    record("startup", result)
    before = kernel_caches.files(home)
    warm = _start("warm", checkpoints.w4a8, home, work / "logs")
    added = kernel_caches.files(home) - before
    record("startup", {**result, "warm": warm, "added": sorted(map(str, added))})
    assert warm["tokens"] == cold["tokens"]
    assert warm["start_s"] + warm["seconds"] < (cold["start_s"] + cold["seconds"]) / 2


def test_what_each_missing_folder_costs(checkpoints: Checkpoints, work: Path, record: Record) -> None:
    """All at a time, beside one that misses nothing: on copies elsewhere, as an import makes them."""
    kept = kernel_caches.folders(work / HOME, begun=0)
    assert kept, "test_kept_caches_spare_the_kernels has to fill them first"
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


def _start(name: str, model: Path, home: Path, logs: Path) -> dict[str, Any]:
    """One engine's start, its first answer and its second to a prompt of the same length."""
    with Engine(Setting(name=name, model=model, home=home, arguments=ARGUMENTS), logs) as engine:
        answer = engine.ready(500)
        answer |= engine.generate(PROMPT)
        return answer | {"again_s": engine.generate(PROMPT, seed=2)["seconds"]}
