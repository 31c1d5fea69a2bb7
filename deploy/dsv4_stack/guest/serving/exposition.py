"""Prometheus text in full: samples with their labels, and from them histograms by upper bound.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
from collections.abc import Iterator
from typing import Final

Buckets = dict[str, float]
"""How many were at most as large as the bound, by bound as it is written; "+Inf" counts them all."""

_SAMPLE: Final = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \S+)?")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_BUCKET: Final = "_bucket"


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each sample; a line that is none is passed over."""
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line):
            try:
                yield match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])
            except ValueError:
                continue


def histograms(text: str) -> dict[str, Buckets]:
    """Each histogram's buckets, added up over its other labels (engines, models)."""
    found: dict[str, Buckets] = {}
    for name, labels, value in samples(text):
        if name.endswith(_BUCKET) and "le" in labels:
            buckets = found.setdefault(name.removesuffix(_BUCKET), {})
            buckets[labels["le"]] = buckets.get(labels["le"], 0.0) + value
    return found
