"""Prefill at one TP2 rank's shapes, all 256 experts, 8 layers: W4A8 against W4A16, 8192 tokens a step against 16384.

One engine after the other, since 80 GB hold no four. The first one starts once more after the second: a difference
between the others says nothing if it is smaller than the one between those two.
"""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from gpu.engines import Engine, EngineFailed, Setting
from gpu.workdir import METHODS, Checkpoints, Record, make_checkpoints, shared_home

pytestmark = pytest.mark.gpu

LENGTHS: Final = (1024, 8192, 16384, 24576)
ROUNDS: Final = 7
# 14 GB, which both kinds have in common. No hash routing: its table would spread tokens whatever the routers do.
OPTIONS: Final = ("--layers", "8", "--experts", "256", "--hash-layers", "0", "--rank-of-tp2")
EXPERTS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Step:
    """`tokens` is max_num_batched_tokens."""

    name: str
    kind: str
    tokens: int


STEPS: Final = (
    Step(name="w4a8-16384", kind="w4a8", tokens=16384),
    Step(name="w4a16-16384", kind="w4a16", tokens=16384),
    Step(name="w4a8-16384-again", kind="w4a8", tokens=16384),
    Step(name="w4a8-8192", kind="w4a8", tokens=8192),
)


def test_ladder(work: Path, record: Record) -> None:
    models = make_checkpoints(work, "ladder", *OPTIONS)
    rows: list[dict[str, Any]] = []
    with ExitStack() as running:
        engines = [running.enter_context(Engine(_setting(step, models, work), work / "logs")) for step in STEPS]
        for engine in engines:
            engine.answer(300)
        for engine in engines:
            rows.append(_row(engine))
            record("ladder", {"rounds": ROUNDS, "rows": rows, "drift": _drift(rows)})
    assert {row["name"]: row.get("error") for row in rows} == {step.name: None for step in STEPS}
    lacking = {row["name"]: METHODS[step.kind] - set(row["choices"]) for step, row in zip(STEPS, rows, strict=True)}
    assert lacking == {step.name: frozenset() for step in STEPS}
    used = {row["name"]: min(layer["used"] for layer in row["routing"]) for row in rows}
    assert {name: number for name, number in used.items() if number < 0.9 * EXPERTS} == {}
    medians = {row["name"]: [row[str(length)]["median_ms"] for length in LENGTHS] for row in rows}
    assert {name: ladder == sorted(ladder) for name, ladder in medians.items()} == dict.fromkeys(medians, True)


def _setting(step: Step, models: Checkpoints, work: Path) -> Setting:
    return Setting(
        name=step.name,
        model=getattr(models, step.kind),
        home=shared_home(work),
        arguments={
            "max_model_len": 32768,
            "max_num_batched_tokens": step.tokens,
            "kv_cache_memory_bytes": 2 << 30,
        },
        hold=True,
    )


def _row(engine: Engine) -> dict[str, Any]:
    """Its start, the seconds of its first prompts and what a prompt takes then, and which error ended it if one did."""
    row: dict[str, Any] = {"name": engine.name}
    try:
        engine.go()
        row |= {"start": engine.answer(500), "firsts": _firsts(engine)}
        row |= {str(length): _milliseconds(_measured(engine, length)) for length in LENGTHS}
        row |= {"routing": engine.routing(LENGTHS[1])}
    except EngineFailed as failure:
        row["error"] = failure.error
    engine.end()
    return {**row, "choices": engine.choices()}


def _drift(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What the first engine takes when it is started again, for each length, as a multiple of what it took before."""
    found = {row["name"]: row for row in rows if "error" not in row}
    first, again = found.get(STEPS[0].name), found.get(STEPS[2].name)
    if not first or not again:
        return {}
    return {str(length): again[str(length)]["median_ms"] / first[str(length)]["median_ms"] for length in LENGTHS}


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
