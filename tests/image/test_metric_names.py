"""Metrics of vLLM's that the dashboard, the alerts and `dsv4 status` ask for, in the real files of every release."""

import re

import pytest
from helpers.wheels import RELEASES, tree

from dsv4_stack import assets, panels

pytestmark = pytest.mark.network

SOURCES = [
    assets.COMPOSE / "monitoring/alerts.yml",
    assets.PACKAGE / "figures/figure.py",
    assets.PACKAGE / "guest/serving/movement.py",
]
TEXT = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
TEXT += "".join(query.expr for row in panels.ROWS for panel in row.panels for query in panel.queries)
# What Prometheus's client adds to the name that vLLM gives: to counters, and to histograms.
ASKED = sorted({re.sub(r"_(total|bucket|sum|count)$", "", name) for name in re.findall(r"vllm:\w+", TEXT)})
# A histogram whose own name ends so: vllm:iteration_tokens_total_count.
OWN_TOTAL = {"vllm:iteration_tokens_total"}


def test_they_are_found() -> None:
    assert len(ASKED) > 10
    assert "vllm:time_to_first_token_seconds" in ASKED


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_has_them_all(release: str) -> None:
    text = (tree(release) / "vllm/v1/metrics/loggers.py").read_text(encoding="utf-8")
    named = set(re.findall(r'name="(vllm:\w+)"', text))
    assert named >= OWN_TOTAL
    assert set(ASKED) - OWN_TOTAL - named == set()
