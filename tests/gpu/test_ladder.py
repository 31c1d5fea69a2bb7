"""Prefill at one TP2 rank's shapes, all 256 experts, 8 layers: W4A8 against W4A16, 8192 tokens a step against 16384.

The first engine fills the caches, the others start on them. Then all stand loaded and are measured in turn, so that
whatever changes with time changes for all.
"""

import fcntl
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from gpu.engines import Engine, Setting
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
            arguments={"load_format": "dummy", "max_model_len": 32768, "max_num_batched_tokens": step},
            random_int4=True,
        )
        for kind, step in STEPS
    ]
    with ExitStack() as running:
        first, *others = settings
        engines = [running.enter_context(Engine(first, work / "logs"))]
        starts = [engines[0].ready(700)]
        record("ladder", {"starts": starts, "first": (firsts := _firsts(engines[0]))})
        engines += [running.enter_context(Engine(setting, work / "logs")) for setting in others]
        starts += [engine.ready(300) for engine in engines[1:]]
        for engine in engines[1:]:
            _firsts(engine)
        with locked(work / "gpu.lock", fcntl.LOCK_EX):
            rows = [_row(setting, seconds) for setting, seconds in zip(settings, _measured(engines), strict=True)]
        choices = [engine.choices() for engine in engines]
    record("ladder", {"rounds": ROUNDS, "starts": starts, "first": firsts, "rows": rows, "choices": choices})
    assert [start["filled"] > 0 for start in starts] == [True] * len(STEPS)
    medians = {row["name"]: [row[str(length)]["median_ms"] for length in LENGTHS] for row in rows}
    assert {name: ladder == sorted(ladder) for name, ladder in medians.items()} == dict.fromkeys(medians, True)


def _firsts(engine: Engine) -> dict[str, list[float]]:
    """Seconds of the first and of the second prompt of each length."""
    return {
        str(length): [engine.generate(length, tokens=1, seed=length + again)["seconds"] for again in (1, 2)]
        for length in LENGTHS
    }


def _measured(engines: list[Engine]) -> list[dict[int, list[float]]]:
    seconds: list[dict[int, list[float]]] = [{length: [] for length in LENGTHS} for _ in engines]
    for length in LENGTHS:
        for number in range(ROUNDS):
            for at in range(len(engines)):
                turn = (at + number) % len(engines)
                answer = engines[turn].generate(length, tokens=1, seed=length + 10 + number)
                seconds[turn][length].append(answer["seconds"])
    return seconds


def _row(setting: Setting, seconds: dict[int, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": setting.name, "arguments": dict(setting.arguments)}
    for length, values in seconds.items():
        row[str(length)] = {
            "median_ms": statistics.median(values) * 1000,
            "min_ms": min(values) * 1000,
            "max_ms": max(values) * 1000,
        }
    return row
