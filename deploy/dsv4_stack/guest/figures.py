"""What this container's watch and engine say in numbers, from inside: behind the edge no port is published."""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsv4_stack.guest.serving import devices, exposition, movement, notice, supervisor
from dsv4_stack.guest.serving.api import Api


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """The environment of the container says everything."""


def run(_args: argparse.Namespace) -> None:
    text = Api(supervisor.port(), "").text("/metrics")
    board = Path(os.environ.get("DSV4_RUN", "/run/dsv4")) / notice.STATE
    print(json.dumps(figures(text, _notice(board), time.time())))


def figures(text: str, found: Any, now: float) -> dict[str, Any]:  # noqa: ANN401
    """`text` is the engine's /metrics, "" while it does not listen; `found` is the watch's notice."""
    return {
        "at": now,
        "gpus": notice.gpus(),
        "notice": found,
        "totals": {name: value for name, value in movement.totals(text).items() if not name.endswith("_bucket")},
        "histograms": exposition.histograms(text),
        "devices": [asdict(device) for device in devices.look()],
    }


def _notice(file: Path) -> Any:  # noqa: ANN401
    """None where no watch has put one there."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
