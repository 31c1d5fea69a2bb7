"""What the dashboard shows: panels and their PromQL, row by row. Names of vLLM's metrics are those of 0.22 to 0.33."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dsv4_stack import card
from dsv4_stack.guest.serving.watch import State

# Grafana makes it a few times the scrape interval, or more where a pixel stands for more.
SPAN: Final = "[$__rate_interval]"
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Kind(StrEnum):
    """Grafana's names of what a panel is."""

    STAT = "stat"
    LINES = "timeseries"
    TIMELINE = "state-timeline"


@dataclass(frozen=True, kw_only=True)
class Query:
    """`legend` names the line; an empty one leaves its labels. A `card`'s is a reference line."""

    expr: str
    legend: str = ""
    is_card: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """`unit` is Grafana's. `names` are what values mean, with a colour; `bad_above` colours what is more."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.LINES
    width: int = 8
    height: int = 7
    names: tuple[tuple[str, str], ...] = ()
    bad_above: float | None = None
    most: float | None = None
    shows_legend_names: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


# Position is value: the sum below gives one number for the one state that is set.
STATES: Final = (
    ("not there", "red"),
    (State.STARTING, "yellow"),
    (State.READY, "green"),
    (State.WRONG, "red"),
    (State.HUNG, "red"),
    (State.STOPPING, "orange"),
)


def _state() -> Query:
    numbered = enumerate(name for name, _ in STATES[1:])
    found = " + ".join(f'{number + 1} * sum(dsv4_state{{state="{name}"}})' for number, name in numbered)
    return Query(expr=f"({found}) or vector(0)", legend="state")


def _rate(counter: str) -> str:
    return f"sum(rate({counter}{SPAN}))"


def _quantiles(histogram: str) -> tuple[Query, ...]:
    return tuple(
        Query(expr=f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket{SPAN})))", legend=name)
        for name, share in QUANTILES.items()
    )


def _reference(value: float) -> Query:
    return Query(expr=f"vector({value})", legend=card.LABEL, is_card=True)


_FIRING: Final = 'ALERTS{alertstate="firing"}'

IS_IT_WELL: Final = (
    Panel(
        title="State",
        about="What the watch says of the engine. `dsv4 status` has the reason.",
        queries=(_state(),),
        kind=Kind.STAT,
        names=STATES,
        width=4,
        height=5,
    ),
    Panel(
        title="Alerts",
        about="Those that fire; Prometheus has their descriptions at /alerts.",
        queries=(
            Query(
                expr=f"sum by (alertname) ({_FIRING}) or on() "
                f'(label_replace(vector(0), "alertname", "none", "", "") unless on() {_FIRING})',
                legend="{{alertname}}",
            ),
        ),
        kind=Kind.STAT,
        bad_above=0,
        shows_legend_names=True,
        width=6,
        height=5,
    ),
    Panel(
        title="Wrong answers",
        about="To the question whose answer is known, within an hour.",
        queries=(Query(expr="sum(increase(dsv4_wrong_answers_total[1h]))", legend="wrong"),),
        kind=Kind.STAT,
        bad_above=0,
        width=3,
        height=5,
    ),
    Panel(
        title="Restarts",
        about="Starts of the engine within an hour, after the first.",
        queries=(Query(expr="sum(changes(dsv4_start_time_seconds[1h]))", legend="restarts"),),
        kind=Kind.STAT,
        bad_above=0,
        width=3,
        height=5,
    ),
    Panel(
        title="State over time",
        about="What the watch said of the engine.",
        queries=(_state(),),
        kind=Kind.TIMELINE,
        names=STATES,
        height=5,
    ),
)
HOW_FAST: Final = (
    Panel(
        title="Time to first token",
        about=f"Of all requests, whatever their length. The card's {card.TTFT_S * 1000:.0f} ms are for one long prompt "
        "at a time.",
        queries=(*_quantiles("vllm:time_to_first_token_seconds"), _reference(card.TTFT_S)),
        unit="s",
    ),
    Panel(
        title="Time per output token",
        about="From one token to the next.",
        queries=_quantiles("vllm:inter_token_latency_seconds"),
        unit="s",
    ),
    Panel(
        title="Prefill per GPU",
        about="Prompt tokens that were computed (not taken from the prefix cache) over the time that their prefill "
        "took, for each GPU; on CPUs for the engine. Requests that are prefilled together share that time, so it is "
        "the card's figure only for one long prompt at a time.",
        queries=(
            Query(
                expr=f"{_rate('vllm:request_prefill_kv_computed_tokens_sum')} / "
                f"{_rate('vllm:request_prefill_time_seconds_sum')} / clamp_min(max(dsv4_gpus), 1)",
                legend="prefill",
            ),
            _reference(card.PREFILL),
        ),
        unit="suffix: tok/s",
    ),
    Panel(
        title="Throughput",
        about="Tokens a second over all requests.",
        queries=(
            Query(expr=_rate("vllm:generation_tokens_total"), legend="generated"),
            Query(expr=_rate("vllm:prompt_tokens_total"), legend="prompts, cached ones too"),
        ),
        unit="suffix: tok/s",
    ),
    Panel(
        title="Requests",
        about="Running and waiting in the engine, and in flight at its door.",
        queries=(
            Query(expr="sum(vllm:num_requests_running)", legend="running"),
            Query(expr="sum(vllm:num_requests_waiting)", legend="waiting"),
            Query(expr="sum(dsv4_in_flight_requests)", legend="in flight"),
        ),
    ),
    Panel(
        title="Nothing moves for",
        about="Seconds in which requests ran and no counter of the engine moved; the watch ends a hang.",
        queries=(Query(expr="max(dsv4_quiet_seconds)", legend="quiet"),),
        unit="s",
    ),
)
HOW_FULL: Final = (
    Panel(
        title="Prefix cache hits",
        about="Share of the prompts' tokens that were found in the cache.",
        queries=(
            Query(
                expr=f"{_rate('vllm:prefix_cache_hits_total')} / {_rate('vllm:prefix_cache_queries_total')}",
                legend="hits",
            ),
        ),
        unit="percentunit",
        most=1,
    ),
    Panel(
        title="KV cache",
        about="Share of its blocks that is taken.",
        queries=(Query(expr="max(vllm:kv_cache_usage_perc)", legend="taken"),),
        unit="percentunit",
        most=1,
    ),
    Panel(
        title="Preemptions",
        about="Requests that had to give their KV cache to others, a second; each is computed again.",
        queries=(Query(expr=_rate("vllm:num_preemptions_total"), legend="preemptions"),),
    ),
)
GPUS: Final = (
    Panel(
        title="GPU power",
        about="Watts, from DCGM.",
        queries=(Query(expr="DCGM_FI_DEV_POWER_USAGE", legend="GPU {{gpu}}"),),
        unit="watt",
        width=12,
    ),
    Panel(
        title="GPU memory",
        about="MiB in use, from DCGM.",
        queries=(Query(expr="DCGM_FI_DEV_FB_USED", legend="GPU {{gpu}}"),),
        unit="mbytes",
        width=12,
    ),
)
ROWS: Final = (
    Row(title="Is it well?", panels=IS_IT_WELL),
    Row(title="How fast is it?", panels=HOW_FAST),
    Row(title="How full is it?", panels=HOW_FULL),
    Row(title="GPUs", panels=GPUS),
)
