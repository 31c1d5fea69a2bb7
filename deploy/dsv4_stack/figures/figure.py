"""The dashboard's figures: the same names, the same metrics, the same arithmetic, without a Prometheus."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from dsv4_stack import card
from dsv4_stack.figures.span import Span, ratio
from dsv4_stack.panels import QUANTILES


class Unit(StrEnum):
    SECONDS = "s"
    TOKENS = "tok/s"
    SHARE = "%"
    COUNT = ""
    WATT = "W"
    MIB = "MiB"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`name` is its panel's title. A part is None where there is nothing to tell, `card` where there are no GPUs."""

    name: str
    unit: Unit
    parts: Mapping[str, float | None]
    card: float | None = None


def figures(span: Span, restarts: int) -> list[Figure]:
    """`restarts` are Docker's, since the container was made."""
    return [*_speed(span), *_fullness(span), *_trouble(span, restarts), *_devices(span)]


def _speed(span: Span) -> Iterator[Figure]:
    first, each = (
        {name: span.quantile(share, histogram) for name, share in QUANTILES.items()}
        for histogram in ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds")
    )
    yield Figure(name="Time to first token", unit=Unit.SECONDS, parts=first, card=_of_gpus(span, card.TTFT_S))
    yield Figure(name="Time per output token", unit=Unit.SECONDS, parts=each)
    prefill = ratio(
        span.share("vllm:request_prefill_kv_computed_tokens_sum", "vllm:request_prefill_time_seconds_sum"),
        max(span.after.gpus, 1),
    )
    yield Figure(name="Prefill per GPU", unit=Unit.TOKENS, parts={"": prefill}, card=_of_gpus(span, card.PREFILL))
    throughput = {
        "generated": span.rate("vllm:generation_tokens_total"),
        "prompts": span.rate("vllm:prompt_tokens_total"),
    }
    yield Figure(name="Throughput", unit=Unit.TOKENS, parts=throughput)


def _of_gpus(span: Span, value: float) -> float | None:
    return value if span.after.gpus else None


def _fullness(span: Span) -> Iterator[Figure]:
    totals, notice = span.after.totals, span.after.notice
    requests = {
        "running": totals.get("vllm:num_requests_running"),
        "waiting": totals.get("vllm:num_requests_waiting"),
        "in flight": notice.get("in_flight"),
    }
    yield Figure(name="Requests", unit=Unit.COUNT, parts=requests)
    hits = span.share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
    yield Figure(name="Prefix cache hits", unit=Unit.SHARE, parts={"": hits})
    yield Figure(name="KV cache", unit=Unit.SHARE, parts={"": totals.get("vllm:kv_cache_usage_perc")})
    yield Figure(name="Preemptions", unit=Unit.COUNT, parts={"": span.increase("vllm:num_preemptions_total")})


def _trouble(span: Span, restarts: int) -> Iterator[Figure]:
    notice = span.after.notice
    yield Figure(name="Nothing moves for", unit=Unit.SECONDS, parts={"": notice.get("quiet_s")})
    yield Figure(name="Wrong answers", unit=Unit.COUNT, parts={"": notice.get("wrong_answers")})
    yield Figure(name="Restarts", unit=Unit.COUNT, parts={"": restarts})


def _devices(span: Span) -> Iterator[Figure]:
    devices = span.after.devices
    if devices:
        power = {f"GPU {device.index}": device.power_w for device in devices}
        memory = {f"GPU {device.index}": device.used_mib for device in devices}
        yield Figure(name="GPU power", unit=Unit.WATT, parts=power)
        yield Figure(name="GPU memory", unit=Unit.MIB, parts=memory)
