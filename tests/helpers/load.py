"""Users of the demo's model, and what each of their requests came to."""

import json
import re
import threading
import time
from collections import Counter
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Final

PORT: Final = 8000
# A hundred tokens after abcdef.
ANSWER: Final = ("abcdefghijklmnopqrstuvwxyz" * 5)[6:106]


class Load:
    """Requests for 100 tokens, as many as there are, by any number of threads."""

    def __init__(self, count: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._left = iter(range(count))
        self._lock = threading.Lock()

    def work(self) -> None:
        while (number := self._next()) is not None:
            while (outcome := ask(is_streamed=number % 2 == 0)) == "refused":
                self._count(outcome)
                time.sleep(0.2)
            self._count(outcome)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._left, None)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


def ask(*, is_streamed: bool) -> str:
    """`refused` before anything of an answer came; else the answer is right, or it was lost."""
    body = {"model": "tiny-counter", "prompt": "abcdef", "max_tokens": 100, "temperature": 0, "stream": is_streamed}
    with closing(HTTPConnection("127.0.0.1", PORT, timeout=120)) as connection:
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
        except (OSError, HTTPException):
            return "refused"
        try:
            return _outcome(answer.status, answer.read().decode(), is_streamed=is_streamed)
        except (OSError, HTTPException):
            return "lost: cut off"


def _outcome(status: int, text: str, *, is_streamed: bool) -> str:
    if status != 200:
        return "refused" if status == 503 else f"lost: {status}"
    events = re.findall(r"^data: (\{.*)$", text, re.MULTILINE) if is_streamed else [text]
    choices = [json.loads(event)["choices"][0] for event in events]
    is_whole = not is_streamed or text.endswith("data: [DONE]\n\n")
    said, reason = "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]
    return "right" if is_whole and (said, reason) == (ANSWER, "length") else f"lost: {reason}, {len(said)} tokens"
