"""Patch 0005 on the GPU: vLLM's W4A8 experts give the reference's result where gates and ups pass the limit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu.engines import TESTS
from gpu.left_out import publish
from gpu.workdir import Patched, Record

pytestmark = pytest.mark.gpu

PATCH = "0005-w4a8-swiglu-clamp"
# Relative errors, as norms. Where two inputs differ by a bit, rounding them to FP8 can make it a step of 6 %.
SAME, FAR = 0.04, 0.2


@pytest.fixture(scope="module")
def rows(patched: Patched, work: Path, record: Record) -> list[dict[str, Any]]:
    patch = next(patch for patch in patched.patches if patch.name == PATCH)
    (file,) = patch.layout(patched.release).files
    published = publish(patched.tree, patch, patched.release, work / "published" / PATCH) / file.path
    with (work / "logs" / "clamp.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "gpu.clamp", str(published)],
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=TESTS,
            check=True,
        )
    result = json.loads(done.stdout.decode().splitlines()[-1])
    record("clamp", result)
    return result["rows"]


def test_with_the_patch_every_input_gives_the_reference(rows: list[dict[str, Any]]) -> None:
    errors = {(row["tp"], row["input"]): row["with"]["w4a8"]["relative"] for row in rows}
    assert {key: error for key, error in errors.items() if error > SAME} == {}


def test_without_it_only_inputs_below_the_limit_do(rows: list[dict[str, Any]]) -> None:
    errors = {(row["tp"], row["input"]): row["without"]["w4a8"]["relative"] for row in rows}
    assert {key: error < SAME if key[1] == "below" else error > FAR for key, error in errors.items()} == dict.fromkeys(
        errors, True
    )


def test_the_inputs_are_what_they_are_called(rows: list[dict[str, Any]]) -> None:
    past = {(row["tp"], row["input"]): (row["largest"] > 10, row["gates_past"] > 0.05) for row in rows}
    assert past == {(tp, name): (name == "past", name == "past") for tp in ("TP1", "TP2") for name in ("below", "past")}
