"""A W4A8 checkpoint with the real tensor names, its W4A16 twin, and each patch left out: what loads, and through what.

All engines start at a time, on the caches that test_startup.py has kept if it ran before.
`DSV4_GPU_TRANSFORMERS` may name a directory with a Transformers of 5.10 or later, for what patch 0003 prevents.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from gpu.engines import Engine, Setting
from gpu.left_out import publish
from gpu.workdir import ARGUMENTS, METHODS, Checkpoints, Patched, Record, Results, outcome, shared_home
from helpers.vllm_tree import SERIES

from dsv4_stack.guest.patching import series

pytestmark = pytest.mark.gpu

HASH_MOE = "0003-hash-moe-layer-type"
FAILS = {
    "0004-o-proj-scale-name": "AttributeError: 'ColumnParallelLinear' object has no attribute 'weight_scale_inv'",
}
NEWER = " newer Transformers"


@pytest.fixture(scope="module")
def results(patched: Patched, checkpoints: Checkpoints, work: Path, record: Record) -> Results:
    with ExitStack() as running:
        engines = [
            running.enter_context(Engine(setting, work / "logs")) for setting in _settings(patched, checkpoints, work)
        ]
        found = {engine.name: outcome(engine) for engine in engines}
    record("serving", found)
    return found


def test_w4a8_goes_through_cutlass(results: Results) -> None:
    assert METHODS["w4a8"] <= set(results["w4a8"]["choices"])
    assert len(results["w4a8"]["tokens"]) == 8


def test_w4a16_goes_through_marlin(results: Results) -> None:
    assert METHODS["w4a16"] <= set(results["w4a16"]["choices"])
    assert len(results["w4a16"]["tokens"]) == 8


@pytest.mark.parametrize("name", [patch.name for patch in series.load(SERIES)])
def test_each_patch_left_out(results: Results, name: str) -> None:
    """It fails as the patch says, or the tokens are the same: no effect with this config."""
    if name not in results:
        pytest.skip(f"this release needs no {name}")
    expected = {"error": FAILS[name]} if name in FAILS else {"tokens": results["w4a8"]["tokens"]}
    assert {key: results[name].get(key) for key in expected} == expected


def test_hash_moe_left_out_with_a_newer_transformers(results: Results) -> None:
    if f"w4a8{NEWER}" not in results:
        pytest.skip("DSV4_GPU_TRANSFORMERS names none")
    assert "hash_moe" in results[f"{HASH_MOE}{NEWER}"].get("error", "")
    assert results[f"w4a8{NEWER}"].get("tokens") == results["w4a8"]["tokens"]


def _settings(patched: Patched, checkpoints: Checkpoints, work: Path) -> Iterator[Setting]:
    whole = Setting(name="w4a8", model=checkpoints.w4a8, home=shared_home(work), arguments=ARGUMENTS)
    yield whole
    yield replace(whole, name="w4a16", model=checkpoints.w4a16)
    left_out = [
        replace(
            whole,
            name=patch.name,
            overlay=publish(patched.tree, patch, patched.release, work / "published" / patch.name),
        )
        for patch in patched.patches
    ]
    yield from left_out
    if newer := os.environ.get("DSV4_GPU_TRANSFORMERS"):
        for setting in (whole, *(setting for setting in left_out if setting.name == HASH_MOE)):
            yield replace(setting, name=f"{setting.name}{NEWER}", packages=Path(newer))
