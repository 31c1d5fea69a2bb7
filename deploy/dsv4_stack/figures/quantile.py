"""Quantiles out of a histogram's buckets, as Prometheus's histogram_quantile computes them."""

from bisect import bisect_left
from collections.abc import Mapping
from math import isinf

from dsv4_stack.guest.serving.exposition import Buckets


def quantile(share: float, buckets: Mapping[str, float]) -> float | None:
    """The value that this share (above 0, at most 1) does not exceed; None where nothing was counted.

    Within a bucket values count as spread evenly, from 0 in the first. Those above every finite bound are at the last.
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    bounds = sorted((float(bound), count) for bound, count in buckets.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank = share * bounds[-1][1]
    place = bisect_left([count for _, count in bounds], rank)
    end, count = bounds[place]
    start, below = bounds[place - 1] if place else (min(end, 0.0), 0.0)
    if isinf(end):
        return start if place else None
    return start + (end - start) * (rank - below) / (count - below)


def since(before: Mapping[str, float], after: Mapping[str, float]) -> Buckets:
    """What was counted between two looks; an engine that was started anew between them counts from nothing."""
    if any(count < before.get(bound, 0.0) for bound, count in after.items()):
        return dict(after)
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
