"""The golden question: a prompt whose answer at temperature 0 is known. HTTP 200 alone proves nothing.

Under confidential computing vLLM has answered 200 with garbage (https://github.com/vllm-project/vllm/issues/57224).
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from dsv4_stack.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back: a text and its token ids, or the `refusal` of an engine that gave none.

    One that is `lost` never came, and says nothing about the model: a connection broke, or patience ended. Nor does the
    refusal of one that is `busy`.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    refusal: str = ""
    is_lost: bool = False
    is_busy: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """`expect` is a regular expression that the answer's text has to contain.

    `token_ids`, where there are any, are those that the answer has to begin with.
    """

    model: str
    prompt: str
    max_tokens: int
    expect: str
    token_ids: tuple[int, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        """For POST /v1/completions."""
        body = {"model": self.model, "prompt": self.prompt, "max_tokens": self.max_tokens, "temperature": 0}
        return body | ({"return_token_ids": True} if self.token_ids else {})

    def problem_of(self, answer: Answer) -> str:
        """Why an answer is not the expected one, or nothing."""
        if answer.is_lost:
            return f"the question {self.prompt!r} got no answer"
        if answer.refusal:
            return f"the question {self.prompt!r} was refused: {answer.refusal}"
        if self.token_ids and answer.token_ids[: len(self.token_ids)] != self.token_ids:
            got, wanted = list(answer.token_ids), list(self.token_ids)
            return f"{self.prompt!r} is answered with the tokens {got}, which should begin with {wanted}"
        if not re.search(self.expect, answer.text):
            return f"{self.prompt!r} is answered with {answer.text!r}, which has no {self.expect}"
        return ""


def of_json(text: str) -> Question:
    """A question's fields as JSON. Raises ConfigError."""
    try:
        values = dict(json.loads(text))
        asked = Question(**values | {"token_ids": tuple(values.get("token_ids", ()))})
        re.compile(asked.expect)
    except (ValueError, TypeError, re.error) as error:
        raise ConfigError(f"DSV4_QUESTION is no question: {error}", "render the project again: dsv4 render") from None
    return asked


def answer_of(document: Any) -> Answer:  # noqa: ANN401
    """Of the answer to POST /v1/completions."""
    try:
        choice = document["choices"][0]
        return Answer(text=str(choice["text"]), token_ids=tuple(choice.get("token_ids") or ()))
    except (KeyError, IndexError, TypeError, AttributeError):
        return Answer(refusal=f"no completion: {str(document)[:200]}")
