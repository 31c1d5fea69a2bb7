"""The golden question: its body, what an answer is, and what is wrong with one."""

import json
from dataclasses import asdict, replace

import pytest

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.serving import patience, question
from dsv4_stack.guest.serving.api import Api
from dsv4_stack.guest.serving.question import Answer, Question

BY_TEXT = Question(model="m", prompt="abc", max_tokens=3, expect="^def$")
BY_TOKENS = replace(BY_TEXT, expect="", token_ids=(1, 2))


def test_its_body_asks_for_token_ids_only_where_they_are_compared() -> None:
    assert BY_TEXT.body == {"model": "m", "prompt": "abc", "max_tokens": 3, "temperature": 0}
    assert BY_TOKENS.body == {**BY_TEXT.body, "return_token_ids": True}


@pytest.mark.parametrize("asked", [BY_TEXT, BY_TOKENS])
def test_it_survives_its_way_into_a_container(asked: Question) -> None:
    assert question.of_json(json.dumps(asdict(asked))) == asked


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": "m"}', '{"expect": "("}', json.dumps({**asdict(BY_TEXT), "x": 1})]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="DSV4_QUESTION is no question: "):
        question.of_json(text)


def test_an_engine_that_says_nothing_has_not_answered() -> None:
    asked = Api(0, "secret")
    asked._request = lambda *_: (0, b"")  # type: ignore[method-assign]
    assert asked.answer_to(BY_TEXT) == Answer(is_lost=True)
    assert BY_TEXT.problem_of(Answer(is_lost=True)) == "the question 'abc' got no answer"


@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_is_busy_says_so(status: int) -> None:
    asked = Api(0, "secret")
    asked._request = lambda *_: (status, b"later")  # type: ignore[method-assign]
    assert asked.answer_to(BY_TEXT) == Answer(refusal=f"{status}: later", is_busy=True)


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_an_engine_that_refuses_is_wrong(status: int) -> None:
    asked = Api(0, "secret")
    asked._request = lambda *_: (status, b"no")  # type: ignore[method-assign]
    assert asked.answer_to(BY_TEXT) == Answer(refusal=f"{status}: no")


@pytest.mark.parametrize("text", ["", "[]", '{"x": 1}'])
def test_patience_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="DSV4_PATIENCE is not valid: "):
        patience.of_json(text)


@pytest.mark.parametrize(
    ("asked", "answer", "problem"),
    [
        (BY_TEXT, Answer(text="def"), ""),
        (BY_TEXT, Answer(text="!!!!"), "'abc' is answered with '!!!!', which has no ^def$"),
        (BY_TEXT, Answer(text=""), "'abc' is answered with '', which has no ^def$"),
        (BY_TEXT, Answer(refusal="404: no such model"), "the question 'abc' was refused: 404: no such model"),
        (BY_TOKENS, Answer(text="x", token_ids=(1, 2, 3)), ""),
        (
            BY_TOKENS,
            Answer(text="x", token_ids=(1,)),
            "'abc' is answered with the tokens [1], which should begin with [1, 2]",
        ),
        (BY_TOKENS, Answer(text="x"), "'abc' is answered with the tokens [], which should begin with [1, 2]"),
    ],
)
def test_what_is_wrong_with_an_answer(asked: Question, answer: Answer, problem: str) -> None:
    assert asked.problem_of(answer) == problem


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ({"choices": [{"text": "def"}]}, Answer(text="def")),
        ({"choices": [{"text": "def", "token_ids": [1, 2]}]}, Answer(text="def", token_ids=(1, 2))),
        ({"choices": [{"text": "def", "token_ids": None}]}, Answer(text="def")),
        ({"choices": []}, Answer(refusal="no completion: {'choices': []}")),
        ([], Answer(refusal="no completion: []")),
        ({"error": "x"}, Answer(refusal="no completion: {'error': 'x'}")),
    ],
)
def test_an_answer_is_taken_from_what_the_api_says(document: object, answer: Answer) -> None:
    assert question.answer_of(document) == answer
