"""Figures out of two looks, and how they are shown."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack import panels
from dsv4_stack.figures import figure, view
from dsv4_stack.figures.figure import Unit
from dsv4_stack.figures.look import Look, of_json
from dsv4_stack.figures.span import Span, span
from dsv4_stack.guest import figures as guest
from dsv4_stack.guest.serving.devices import Device

NOTICE = {
    "state": "ready",
    "reason": "'The capital of France is' is answered with ' Paris'",
    "started_at": 1000.0,
    "quiet_s": 1.0,
    "in_flight": 3,
    "wrong_answers": 1,
    "warnings": [],
}
BEFORE = Look(
    at=1100.0,
    gpus=2,
    notice=NOTICE,
    totals={
        "vllm:request_prefill_kv_computed_tokens_sum": 0.0,
        "vllm:request_prefill_time_seconds_sum": 0.0,
        "vllm:generation_tokens_total": 1000.0,
        "vllm:prompt_tokens_total": 0.0,
        "vllm:prefix_cache_hits_total": 0.0,
        "vllm:prefix_cache_queries_total": 0.0,
        "vllm:num_preemptions_total": 4.0,
    },
    histograms={"vllm:time_to_first_token_seconds": {"1.0": 5.0, "2.5": 5.0, "+Inf": 5.0}},
)
# The model card's prompt, computed in its time.
AFTER = replace(
    BEFORE,
    at=1110.0,
    totals={
        "vllm:request_prefill_kv_computed_tokens_sum": 24_576.0,
        "vllm:request_prefill_time_seconds_sum": 1.658,
        "vllm:generation_tokens_total": 1500.0,
        "vllm:prompt_tokens_total": 24_576.0,
        "vllm:prefix_cache_hits_total": 55.0,
        "vllm:prefix_cache_queries_total": 100.0,
        "vllm:num_preemptions_total": 6.0,
        "vllm:num_requests_running": 2.0,
        "vllm:num_requests_waiting": 0.0,
        "vllm:kv_cache_usage_perc": 0.375,
    },
    histograms={
        "vllm:time_to_first_token_seconds": {"1.0": 5.0, "2.5": 15.0, "+Inf": 15.0},
        "vllm:inter_token_latency_seconds": {"0.01": 499.0, "+Inf": 499.0},
    },
    devices=(
        Device(index=0, power_w=512.4, used_mib=130_000.0, total_mib=143_771.0),
        Device(index=1, power_w=None, used_mib=130_100.0, total_mib=143_771.0),
    ),
)
BETWEEN = Span(before=BEFORE, after=AFTER)


def shown(over: Span) -> list[str]:
    return view.rows(over, figure.figures(over, 2))


def test_a_screen_of_them() -> None:
    assert shown(BETWEEN) == [
        "State                  ready: 'The capital of France is' is answered with ' Paris'",
        "Time to first token    p50 1,750 ms, p95 2,425 ms, p99 2,485 ms  (model card: 1,658 ms)",
        "Time per output token  p50 5.0 ms, p95 9.5 ms, p99 9.9 ms",
        "Prefill per GPU        7,411 tok/s  (model card: 7,410 tok/s)",
        "Throughput             generated 50 tok/s, prompts 2,458 tok/s",
        "Requests               running 2, waiting 0, in flight 3",
        "Prefix cache hits      55 %",
        "KV cache               38 %",
        "Preemptions            2",
        "Nothing moves for      1,000 ms",
        "Wrong answers          1",
        "Restarts               2",
        "GPU power              GPU 0 512 W",
        "GPU memory             GPU 0 130,000 MiB, GPU 1 130,100 MiB",
        "                       within the last 10s",
    ]


def test_one_line_of_them() -> None:
    assert view.line(BETWEEN, figure.figures(BETWEEN, 0)).startswith(
        "ready; Time to first token p50 1,750 ms, p95 2,425 ms, p99 2,485 ms; Time per output token p50 5.0 ms"
    )


def test_the_first_look_is_over_the_time_since_the_start() -> None:
    rows = shown(Span(before=None, after=AFTER))
    assert rows[-1].strip() == "since the start, 1m50s"
    assert "Throughput             generated 14 tok/s, prompts 223 tok/s" in rows


def test_while_it_starts_only_the_watch_has_something_to_tell() -> None:
    starting = {**NOTICE, "state": "starting", "reason": "the engine is not up yet"}
    over = Span(before=None, after=Look(at=1005.0, gpus=2, notice=starting))
    assert shown(over) == [
        "State                  starting: the engine is not up yet",
        "Requests               in flight 3",
        "Nothing moves for      1,000 ms",
        "Wrong answers          1",
        "Restarts               2",
        "                       since the start, 5s",
    ]


def test_a_warning_stands_below_the_state_and_a_reason_on_one_line() -> None:
    notice = {**NOTICE, "reason": "refused: 500:\n  odd", "warnings": ["the weights are others"]}
    assert shown(Span(before=None, after=replace(AFTER, notice=notice)))[:2] == [
        "State                  ready: refused: 500: odd",
        "Warning                the weights are others",
    ]


def test_an_engine_without_a_watch_says_so() -> None:
    over = Span(before=None, after=Look(at=1.0))
    assert shown(over)[0] == "State                  there is no watch"
    assert view.line(over, []) == "no watch; since the start, 0s"


def test_the_fields_for_programs_are_json() -> None:
    fields = view.fields(BETWEEN, figure.figures(BETWEEN, 0))
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    assert (fields["span_s"], fields["since_start"]) == (10.0, False)
    assert fields["prefill_per_gpu"] == pytest.approx(7411.3, abs=0.1)
    assert fields["prefix_cache_hits"] == 0.55
    assert fields["requests"] == {"running": 2.0, "waiting": 0.0, "in flight": 3}
    assert fields["gpu_power"] == {"GPU 0": 512.4, "GPU 1": None}


def test_a_start_between_two_looks_begins_a_new_span() -> None:
    again = replace(AFTER, notice={**NOTICE, "started_at": 1105.0})
    assert span(BEFORE, again) == Span(before=None, after=again)
    assert span(BEFORE, again).seconds == 5.0
    assert span(BEFORE, AFTER) == BETWEEN
    assert span(None, AFTER).before is None


def test_a_counter_that_fell_counts_from_nothing() -> None:
    over = Span(before=AFTER, after=replace(AFTER, totals={"x": 3.0}, at=1112.0))
    assert Span(before=replace(AFTER, totals={"x": 9.0}), after=over.after).increase("x") == 3.0
    assert over.increase("vllm:generation_tokens_total") is None
    assert over.rate("x") == 1.5


def test_nothing_is_divided_by_nothing() -> None:
    over = Span(before=AFTER, after=AFTER)
    assert over.rate("vllm:generation_tokens_total") is None
    assert over.share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total") is None


def test_every_panel_has_its_figure() -> None:
    """But for those that need a history, or a Prometheus."""
    titles = [panel.title for row in panels.ROWS for panel in row.panels]
    named = {found.name for found in figure.figures(BETWEEN, 0)}
    assert set(titles) - named == {"State", "State over time", "Alerts"}
    assert named - set(titles) == set()


def test_the_card_stands_beside_the_same_figures() -> None:
    with_line = {panel.title for row in panels.ROWS for panel in row.panels if any(q.is_card for q in panel.queries)}
    assert with_line == {found.name for found in figure.figures(BETWEEN, 0) if found.card is not None}


def test_without_gpus_there_is_no_card_to_hold_against() -> None:
    over = Span(before=BEFORE, after=replace(AFTER, gpus=0))
    assert [found for found in figure.figures(over, 0) if found.card is not None] == []
    # And the prefill is the engine's.
    assert "Prefill per GPU        14,823 tok/s" in shown(over)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, Unit.SECONDS, "0 ms"),
        (0.0004, Unit.SECONDS, "0.4 ms"),
        (0.031, Unit.SECONDS, "31 ms"),
        (61.0, Unit.SECONDS, "1m01s"),
        (0.0, Unit.TOKENS, "0 tok/s"),
        (3.14, Unit.TOKENS, "3.1 tok/s"),
        (7410.0, Unit.TOKENS, "7,410 tok/s"),
        (0.004, Unit.SHARE, "0 %"),
        (1.0, Unit.SHARE, "100 %"),
        (2.0, Unit.COUNT, "2"),
        (311.6, Unit.WATT, "312 W"),
    ],
)
def test_numbers_have_as_many_digits_as_tell_something(value: float, unit: Unit, text: str) -> None:
    assert view.number(value, unit) == text


@given(st.floats(0, 1e12), st.sampled_from(Unit))
def test_a_number_is_short(value: float, unit: Unit) -> None:
    assert len(view.number(value, unit)) <= 26


METRICS = """\
vllm:generation_tokens_total{engine="0"} 7.0
vllm:time_to_first_token_seconds_bucket{le="0.1"} 1.0
vllm:time_to_first_token_seconds_bucket{le="+Inf"} 2.0
"""


def test_what_the_guest_prints_is_what_the_host_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest.devices, "look", lambda: list(AFTER.devices))
    monkeypatch.setenv("DSV4_GPUS", "2")
    printed = json.dumps(guest.figures(METRICS, NOTICE, 1110.0))
    assert of_json(json.loads(printed)) == Look(
        at=1110.0,
        gpus=2,
        notice=NOTICE,
        totals={"vllm:generation_tokens_total": 7.0},
        histograms={"vllm:time_to_first_token_seconds": {"0.1": 1.0, "+Inf": 2.0}},
        devices=AFTER.devices,
    )
