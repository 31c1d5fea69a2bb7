"""Prefill at one TP2 rank's shapes, all 256 experts, 8 layers: W4A8 against W4A16, 8192 tokens a step against 16384.

One engine after the other, since 80 GB hold no three; the first fills the caches, the others start on them. While one
is measured no other test uses the GPU.
"""

import fcntl
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from gpu.engines import Engine, EngineFailed, Setting
from gpu.workdir import Record, locked, make_checkpoints

pytestmark = pytest.mark.gpu

LENGTHS: Final = (1024, 8192, 16384, 24576)
STEPS: Final = (("w4a8", 16384), ("w4a16", 16384), ("w4a8", 8192))
ROUNDS: Final = 7
OPTIONS: Final = ("--layers", "8", "--experts", "256", "--hash-layers", "0", "--rank-of-tp2", "--config-only")


def test_ladder(work: Path, record: Record) -> None:
    models = make_checkpoints(work, "ladder", *OPTIONS)
    settings = [
        Setting(
            name=f"{kind}-{step}",
            model=getattr(models, kind),
            home=work / "caches" / "ladder",
            arguments={
                "load_format": "dummy",
                "max_model_len": 32768,
                "max_num_batched_tokens": step,
                "kv_cache_memory_bytes": 2 << 30,
            },
            random_int4=True,
            hold=True,
        )
        for kind, step in STEPS
    ]
    rows: list[dict[str, Any]] = []
    with ExitStack() as running:
        engines = [running.enter_context(Engine(setting, work / "logs")) for setting in settings]
        for engine in engines:
            rows.append(_row(engine, work))
            record("ladder", {"rounds": ROUNDS, "rows": rows})
    assert {row["name"]: row.get("error") for row in rows} == {engine.name: None for engine in engines}
    assert [row["start"]["filled"] > 0 for row in rows] == [True] * len(STEPS)
    medians = {row["name"]: [row[str(length)]["median_ms"] for length in LENGTHS] for row in rows}
    assert {name: ladder == sorted(ladder) for name, ladder in medians.items()} == dict.fromkeys(medians, True)


def _row(engine: Engine, work: Path) -> dict[str, Any]:
    """Its start, the seconds of its first prompts and what a prompt takes then, or which error ended it."""
    try:
        row: dict[str, Any] = {"name": engine.name} | engine.answer(300)
        engine.go()
        row |= {"start": engine.answer(500), "firsts": _firsts(engine)}
        with locked(work / "gpu.lock", fcntl.LOCK_EX):
            row |= {str(length): _milliseconds(_measured(engine, length)) for length in LENGTHS}
    except EngineFailed as failure:
        row = {"name": engine.name, "error": failure.error}
    engine.end()
    return {**row, "choices": engine.choices()}


def _firsts(engine: Engine) -> dict[str, list[float]]:
    """Seconds of the first and of the second prompt of each length."""
    return {
        str(length): [engine.generate(length, tokens=1, seed=length + again)["seconds"] for again in (1, 2)]
        for length in LENGTHS
    }


def _measured(engine: Engine, length: int) -> list[float]:
    return [engine.generate(length, tokens=1, seed=length + 10 + number)["seconds"] for number in range(ROUNDS)]


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return {
        "median_ms": statistics.median(seconds) * 1000,
        "min_ms": min(seconds) * 1000,
        "max_ms": max(seconds) * 1000,
    }
