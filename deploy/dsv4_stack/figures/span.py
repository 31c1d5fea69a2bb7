"""What happened between two looks, or from the engine's start to one: increases, rates, quantiles."""

from collections.abc import Mapping
from dataclasses import dataclass

from dsv4_stack.figures import quantile
from dsv4_stack.figures.look import Look


@dataclass(frozen=True, kw_only=True)
class Span:
    """`before` is None where the span begins with the engine."""

    before: Look | None
    after: Look

    @property
    def seconds(self) -> float:
        return self.after.at - (self.before.at if self.before else self.after.started_at)

    def increase(self, counter: str) -> float | None:
        """None for a counter that the engine has not."""
        if counter not in self.after.totals:
            return None
        now = self.after.totals[counter]
        then = self.before.totals.get(counter, 0.0) if self.before else 0.0
        return now - then if now >= then else now

    def rate(self, counter: str) -> float | None:
        """A second."""
        return ratio(self.increase(counter), self.seconds)

    def share(self, part: str, whole: str) -> float | None:
        """One counter's increase over another's; None where the other did not move."""
        return ratio(self.increase(part), self.increase(whole))

    def quantile(self, share: float, histogram: str) -> float | None:
        before: Mapping[str, float] = self.before.histograms.get(histogram, {}) if self.before else {}
        return quantile.quantile(share, quantile.since(before, self.after.histograms.get(histogram, {})))


def span(before: Look | None, after: Look) -> Span:
    """From one look to the next; from the start, where there is no earlier one or the engine was started since."""
    return Span(before=before if before and before.at >= after.started_at else None, after=after)


def ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
