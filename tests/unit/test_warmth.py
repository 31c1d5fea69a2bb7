"""Prompts that warm an engine: their lengths, their tokens, and what came of them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest import warm as guest_warm
from dsv4_stack.guest.serving import warmth


class Api:
    """Answers all but prompts of more than 100 tokens."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []

    def prefill(self, tokens: Sequence[int], _within_s: float) -> str:
        self.prompts.append(list(tokens))
        return "400: too long" if len(tokens) > 100 else ""


def test_each_length_is_sent_once_the_shortest_first_and_a_problem_stops_nothing() -> None:
    api = Api()
    found = list(warmth.warm(api, (50, 200, 2), 1000, 5))
    assert [len(prompt) for prompt in api.prompts] == [2, 50, 200]
    assert [(each.length, each.problem) for each in found] == [(2, ""), (50, ""), (200, "400: too long")]
    assert str(found[0]) == "2 tokens: 0.0 s"
    assert str(found[2]) == "200 tokens: 400: too long"


@given(st.integers(1, 2000), st.integers(1, 200_000))
def test_a_prompt_has_its_length_and_the_models_tokens_at_every_start(length: int, vocabulary: int) -> None:
    prompt = warmth.prompt(length, vocabulary)
    assert len(prompt) == length
    assert all(0 <= token < vocabulary for token in prompt)
    assert warmth.prompt(length, vocabulary) == prompt


def test_no_two_lengths_share_a_beginning() -> None:
    """It would come out of the prefix cache, and compile nothing."""
    starts = [tuple(warmth.prompt(length, 129280)[:16]) for length in (16, 128, 1024, 4096, 8192, 16384, 24576)]
    assert len(set(starts)) == len(starts)


def test_a_serving_engine_is_warmed_with_prompts_that_it_has_not_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither at its start nor the last time; a prefix cache looks at the first block of tokens."""
    api = Api()
    monkeypatch.setattr(guest_warm, "Api", lambda *_: api)
    arguments = argparse.Namespace(lengths=[64])
    list(warmth.warm(api, [64], 256, 5))
    guest_warm.run(arguments)
    guest_warm.run(arguments)
    assert [len(prompt) for prompt in api.prompts] == [64, 64, 64]
    assert len({tuple(prompt[:16]) for prompt in api.prompts}) == 3
    assert [json.loads(line)[0]["length"] for line in capsys.readouterr().out.splitlines()] == [64, 64]


@pytest.mark.parametrize(
    ("text", "size"),
    [('{"vocab_size": 129280}', 129280), ("{}", 256), ('{"vocab_size": "x"}', 256), ("[]", 256), ("", 256)],
)
def test_the_vocabulary_is_the_checkpoints(tmp_path: Path, text: str, size: int) -> None:
    (tmp_path / "config.json").write_text(text)
    assert warmth.vocabulary_of(tmp_path) == size
    assert warmth.vocabulary_of(tmp_path / "nowhere") == 256


def test_lengths_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSV4_WARM", raising=False)
    assert warmth.lengths() == ()
    monkeypatch.setenv("DSV4_WARM", json.dumps([4, 400]))
    assert warmth.lengths() == (4, 400)
    monkeypatch.setenv("DSV4_WARM", "many")
    with pytest.raises(ConfigError, match="DSV4_WARM is no list of lengths"):
        warmth.lengths()
