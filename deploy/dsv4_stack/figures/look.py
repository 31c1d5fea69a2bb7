"""One look at a running serve container, from inside it, since its ports may be published nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dsv4_stack import engine
from dsv4_stack.errors import Dsv4Error
from dsv4_stack.guest.serving.devices import Device


@dataclass(frozen=True, kw_only=True)
class Look:
    """`notice` is what the watch says, `totals` are the engine's counters and gauges, `at` is in seconds since 1970."""

    at: float
    gpus: int = 0
    notice: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()

    @property
    def started_at(self) -> float:
        return float(self.notice.get("started_at", self.at))


def of_json(found: Any) -> Look:  # noqa: ANN401
    """What the guest's verb `figures` prints."""
    return Look(
        at=found["at"],
        gpus=found["gpus"],
        notice=found["notice"] or {},
        totals=found["totals"],
        histograms=found["histograms"],
        devices=tuple(Device(**device) for device in found["devices"]),
    )


def look(serve: engine.State | None) -> Look | None:
    """None where nothing runs that could be asked, or where it is of a time that had no figures."""
    if serve is None or serve.status != "running":
        return None
    try:
        return of_json(engine.ask_guest(serve, "figures"))
    except (Dsv4Error, ValueError, KeyError, TypeError):
        return None
