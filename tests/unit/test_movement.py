"""Counters out of Prometheus text, as vLLM writes it."""

from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest.serving import movement

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny-counter"} 2.0
vllm:num_requests_waiting{engine="0",model_name="tiny-counter"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="{odd} name"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="tiny-counter"} 10.0
vllm:prompt_tokens_total{engine="1",model_name="tiny-counter"} 5.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="tiny-counter"} 7.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny-counter"} 7.0
process_cpu_seconds_total 12.5
python_info{version="3.11"} 1.0
broken_line NaNN
odd
"""


def test_totals_are_over_all_labels() -> None:
    found = movement.totals(TEXT)
    assert found["vllm:prompt_tokens_total"] == 15
    assert found["vllm:kv_cache_usage_perc"] == 0.25
    assert "broken_line" not in found


def test_running_are_those_that_wait_too() -> None:
    assert movement.running(movement.totals(TEXT)) == 3
    assert movement.running({}) == 0


def test_movement_is_the_engines_and_not_the_processs() -> None:
    before = movement.movement(movement.totals(TEXT))
    assert before == (
        ("vllm:iteration_tokens_total_count", 7),
        ("vllm:prompt_tokens_total", 15),
        ("vllm:kv_cache_usage_perc", 0.25),
    )
    assert movement.movement(movement.totals(TEXT.replace("12.5", "13.5"))) == before
    assert movement.movement(movement.totals(TEXT.replace("0.25", "0.26"))) != before


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    assert all(isinstance(value, float) for value in movement.totals(text).values())
