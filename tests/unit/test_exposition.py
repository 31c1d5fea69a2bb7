"""Histograms out of Prometheus text, as vLLM writes it."""

from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest.serving import exposition

TEXT = """\
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="a"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="a"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1",model_name="a"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf",model_name="a"} 4.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="a"} 3.0
vllm:odd_bucket{model_name="le=\\"1\\", {odd}",le="2"} 5 1800000000000
vllm:no_histogram_bucket{engine="0"} 7.0
"""


def test_buckets_are_added_up_over_the_other_labels() -> None:
    assert exposition.histograms(TEXT) == {
        "vllm:time_to_first_token_seconds": {"0.1": 3.0, "+Inf": 7.0},
        "vllm:odd": {"2": 5.0},
    }


def test_labels_are_read_with_their_quotes() -> None:
    (odd,) = [labels for name, labels, _ in exposition.samples(TEXT) if name == "vllm:odd_bucket"]
    assert odd == {"model_name": 'le=\\"1\\", {odd}', "le": "2"}


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    assert all(isinstance(value, float) for _, _, value in exposition.samples(text))


@given(st.dictionaries(st.sampled_from(["0.5", "1.0", "+Inf"]), st.integers(0, 99)), st.integers(1, 3))
def test_what_was_written_is_read(buckets: dict[str, int], engines: int) -> None:
    lines = [
        f'x_bucket{{engine="{engine}",le="{bound}"}} {count}'
        for engine in range(engines)
        for bound, count in buckets.items()
    ]
    wanted = {bound: float(count * engines) for bound, count in buckets.items()}
    assert exposition.histograms("\n".join(lines)).get("x", {}) == wanted
