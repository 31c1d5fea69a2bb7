"""What could be seen of a subject from outside while a fault was on: its health, and what users got."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

from harness.serving.subjects import Look, Subject, look, outcome

EVERY_S: Final = 0.5
_MOST: Final = 5
_REASONS: Final = ("error:", "dsv4: hung", "dsv4: wrong", "dsv4: not ready", "dsv4: the")


@dataclass(frozen=True, kw_only=True)
class Sample:
    at_s: float
    look: Look
    user: str


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """`said_s` is when the subject's log first gave a reason, `said` the last one that it gave."""

    samples: tuple[Sample, ...]
    said: str = ""
    said_s: float | None = None

    @property
    def noticed_s(self) -> float | None:
        """When anything first told that something is wrong; None where nothing ever did."""
        first = self.samples[0].look.restarts if self.samples else 0
        seen = next((sample.at_s for sample in self.samples if _tells(sample, first)), None)
        return min((at_s for at_s in (seen, self.said_s) if at_s is not None), default=None)

    @property
    def story(self) -> str:
        """`healthy, 8 s unhealthy, 17 s starting, 21 s healthy; 1 restart`."""
        chapters = list(self._chapters())
        if len(chapters) > _MOST:
            chapters = [*chapters[: _MOST - 1], "…", chapters[-1]]
        restarts = self.samples[-1].look.restarts if self.samples else 0
        again = f"; {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
        return ", ".join(chapters) + again

    def _chapters(self) -> Iterator[str]:
        for state, group in groupby(self.samples, _state):
            first = next(iter(group))
            yield f"{first.at_s:.0f} s {state}" if first.at_s >= 1 else state

    @property
    def users(self) -> str:
        """`12 no answer, 3 refused with 503, 5 right`: in the order in which they came first."""
        return ", ".join(f"{count} {name}" for name, count in Counter(sample.user for sample in self.samples).items())


def _tells(sample: Sample, restarts: int) -> bool:
    """That it is starting is no word about what was wrong before."""
    is_wrong = sample.look.health == "unhealthy" or sample.look.status != "running"
    return is_wrong or sample.look.restarts > restarts or sample.user.startswith("refused")


def _state(sample: Sample) -> str:
    return (sample.look.health or "running") if sample.look.status == "running" else sample.look.status


def watch(subject: Subject, seconds: float, is_over: Callable[[list[Sample]], bool]) -> Timeline:
    """Look and ask until so many seconds are over, or it is."""
    began, started_at = time.monotonic(), datetime.now(UTC)
    samples: list[Sample] = []
    while (at_s := time.monotonic() - began) < seconds and not is_over(samples):
        samples.append(Sample(at_s=at_s, look=look(subject), user=outcome(subject)))
        time.sleep(EVERY_S)
    reasons = list(_reasons(subject.log(since=started_at.isoformat())))
    said_s = (reasons[0][0] - started_at).total_seconds() if reasons else None
    return Timeline(samples=tuple(samples), said=reasons[-1][1] if reasons else "", said_s=said_s)


def _reasons(log: str) -> Iterator[tuple[datetime, str]]:
    """The reasons that the watch or the entrypoint gave, with the times that Docker put before them."""
    for line in log.splitlines():
        stamp, _, text = line.partition(" ")
        if text.startswith(_REASONS):
            yield datetime.fromisoformat(f"{stamp[:26]}+00:00"), text.removeprefix("dsv4: ")


def recovered(samples: list[Sample]) -> bool:
    """Whether users have been answered rightly three times running after they were not."""
    got = [sample.user for sample in samples]
    return len(got) > 3 and got[-3:] == ["right"] * 3 and any(user != "right" for user in got)
