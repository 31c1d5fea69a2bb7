"""Alerts and what Prometheus asks. That each alert fires is proved by promtool: tests/stack/test_monitoring.py."""

import re
from typing import Any

import pytest
import yaml

from dsv4_stack import __main__ as cli
from dsv4_stack import assets, panels
from dsv4_stack.guest.serving import notice

MONITORING = assets.COMPOSE / "monitoring"
ALERTS_TEXT = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS_TEXT)["groups"][0]["rules"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_the_matter_and_what_to_run(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    commands = re.findall(r"`dsv4 ([a-z]+)", rule["annotations"]["description"])
    assert commands
    assert set(commands) <= set(cli.VERBS)


def test_every_alert_is_made_to_fire() -> None:
    text = (assets.ROOT / "tests/data/alerts_test.yml").read_text(encoding="utf-8")
    fired = set(re.findall(r'alertname="(\w+)"', text))
    assert fired == {rule["alert"] for rule in RULES}


def test_metrics_of_the_watch_are_those_that_it_has() -> None:
    expressions = ALERTS_TEXT + "".join(query.expr for row in panels.ROWS for p in row.panels for query in p.queries)
    asked = set(re.findall(r"\bdsv4_\w+", expressions))
    told = set(re.findall(r'"(dsv4_\w+)"', (assets.PACKAGE / "guest/serving/notice.py").read_text(encoding="utf-8")))
    assert asked - told == set()


def test_what_is_asked_is_on_the_stacks_own_network() -> None:
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    targets = {name: job["static_configs"][0]["targets"] for name, job in jobs.items() if "static_configs" in job}
    assert targets == {"engine": ["serve:8000"], "watch": [f"serve:{notice.PORT}"]}
    assert yaml.safe_load((assets.COMPOSE / "gpu-metrics/targets.yml").read_text()) == [
        {"targets": ["dcgm-exporter:9400"]}
    ]


def test_grafana_knows_how_often_prometheus_asks() -> None:
    source = yaml.safe_load((MONITORING / "grafana/datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    assert source["uid"] == "prometheus"
