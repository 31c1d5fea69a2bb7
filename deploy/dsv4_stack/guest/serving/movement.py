"""Whether an engine moves: its own counters, as Prometheus text has them.

`/health` is 200 while an engine hangs (https://github.com/vllm-project/vllm/issues/39863); counters are not.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

Movement = tuple[tuple[str, float], ...]
"""Counters by name, in order. Two that differ show that the engine did something between them."""

# A prefill in chunks gives no token for many steps, but takes cache blocks with each.
COUNTERS: Final = (
    "vllm:iteration_tokens_total_count",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:num_preemptions_total",
    "vllm:kv_cache_usage_perc",
)
RUNNING: Final = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_SAMPLE: Final = re.compile(r"([A-Za-z_:][\w:]*)(?:\{.*\})? (\S+)(?: \S+)?")


def samples(text: str) -> Iterator[tuple[str, float]]:
    """Name and value of each sample, labels left out; a line that is none is passed over."""
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line):
            try:
                yield match[1], float(match[2])
            except ValueError:
                continue


def totals(text: str) -> dict[str, float]:
    """Samples by name, added up over their labels (ranks, finish reasons)."""
    found: dict[str, float] = {}
    for name, value in samples(text):
        found[name] = found.get(name, 0.0) + value
    return found


def movement(found: Mapping[str, float]) -> Movement:
    return tuple((name, found[name]) for name in COUNTERS if name in found)


def running(found: Mapping[str, float]) -> int:
    """Requests that the engine works on or has in its queue."""
    return int(sum(found.get(name, 0.0) for name in RUNNING))
