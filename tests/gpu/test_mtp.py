"""Speculative decoding with the model's own MTP draft, as a profile's `mtp = true` turns it on.

The published draft is BF16; the other one is quantized as the model's layers are.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from gpu.engines import Engine, Setting
from gpu.left_out import publish
from gpu.workdir import ARGUMENTS, Patched, Record, Results, make_checkpoints, outcome, shared_home

from dsv4_stack.plan import MTP

pytestmark = pytest.mark.gpu

TOKENS = 32
MAPPING = "0002-packed-modules-mapping-mtp"


@pytest.fixture(scope="module")
def results(patched: Patched, work: Path, record: Record) -> Results:
    with ExitStack() as running:
        engines = [running.enter_context(Engine(setting, work / "logs")) for setting in _settings(patched, work)]
        found = {engine.name: outcome(engine, tokens=TOKENS) for engine in engines}
    record("mtp", found)
    return found


def test_a_quantized_draft_loads_and_runs(results: Results) -> None:
    assert len(results["mtp-off"]["tokens"]) == TOKENS
    assert results["mtp-off"]["drafts"] == {}
    assert len(results["mtp"]["tokens"]) == TOKENS
    assert results["mtp"]["drafts"]["num_drafts"] > 0


def test_the_published_draft_needs_a_later_engine(results: Results) -> None:
    """Why `dsv4 engines` refuses the option before 0.30.0: the draft's wo_a is BF16."""
    assert "weight_scale_inv" in results["mtp-bf16"].get("error", "")


def test_the_mapping_left_out(results: Results) -> None:
    name = f"mtp without {MAPPING}"
    if name not in results:
        pytest.skip(f"this release needs no {MAPPING}")
    assert results[name].get("tokens") == results["mtp"]["tokens"]


def _settings(patched: Patched, work: Path) -> Iterator[Setting]:
    model = make_checkpoints(work, "draft", "--draft", "quantized").w4a8
    off = Setting(name="mtp-off", model=model, home=shared_home(work), arguments=ARGUMENTS)
    yield off
    speculative = {**ARGUMENTS, "speculative_config": MTP, "disable_log_stats": False}
    on = replace(off, name="mtp", arguments=speculative)
    yield on
    yield replace(on, name="mtp-bf16", model=make_checkpoints(work, "draft-bf16", "--draft", "bf16").w4a8)
    for patch in patched.patches:
        if patch.name == MAPPING:
            published = publish(patched.tree, patch, patched.release, work / "published" / "mtp")
            yield replace(on, name=f"mtp without {MAPPING}", overlay=published)
