"""A stack under a real Prometheus: what its series hold, what fires, and some traffic to see."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from helpers.process import ROOT
from helpers.stacks import DEMO, STANDIN, Stack, ask, stack
from helpers.watched import free_port

MONITORING: Final = (ROOT / "compose/monitoring.yaml", ROOT / "tests/standin/monitoring.yaml")
ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Monitored:
    """`port` is Prometheus's."""

    stack: Stack
    port: int

    def ask(self, path: str, **words: str) -> Any:  # noqa: ANN401
        """Of Prometheus's API; None where it does not answer."""
        status, body = ask(self.port, f"/api/v1/{path}?{urlencode(words)}")
        return json.loads(body)["data"] if status == 200 else None

    def values(self, expr: str) -> list[float]:
        """What the expression comes to now; the dashboard's variable is a minute."""
        found = self.ask("query", query=expr.replace("$__rate_interval", "1m"))
        return [float(series["value"][1]) for series in (found or {"result": []})["result"]]

    def has(self, expr: str) -> bool:
        """Whether it comes to numbers: a share of nothing is none."""
        found = self.values(expr)
        return bool(found) and all(map(isfinite, found))

    def is_up(self, job: str) -> bool:
        return self.values(f'up{{job="{job}"}}') == [1.0]

    def firing(self) -> dict[str, dict[str, str]]:
        """Annotations by alert."""
        found = (self.ask("alerts") or {"alerts": []})["alerts"]
        return {alert["labels"]["alertname"]: alert["annotations"] for alert in found if alert["state"] == "firing"}

    def work(self) -> None:
        """A prompt of many blocks that was there before, and an answer."""
        body = {"model": "tiny-counter", "prompt": ALPHABET * 12, "max_tokens": 20, "temperature": 0}
        status, answer = self.stack.ask("/v1/completions", body, timeout=60)
        assert status == 200, answer


@contextmanager
def monitored(
    project: str, folder: Path, *overlays: Path, env: Mapping[str, str], services: tuple[str, ...] = ()
) -> Iterator[Monitored]:
    """The demo under Prometheus, begun and not yet ready; Grafana only where `services` names it."""
    port = free_port()
    settings = {"DSV4_PROMETHEUS_PORT": str(port), **env}
    image = settings.pop("STANDIN_IMAGE", "")
    built = ["materialize"] if STANDIN in overlays else ["materialize", "serve"]
    with stack(project, image, folder, *overlays, *MONITORING, env=settings, under=(DEMO,)) as running:
        done = running.compose("build", *built, timeout=1200)
        assert done.returncode == 0, done.stderr
        running.up("serve", "prometheus", *services)
        yield Monitored(stack=running, port=port)
