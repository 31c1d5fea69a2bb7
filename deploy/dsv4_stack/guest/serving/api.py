"""The engine's API as the watch asks it: plain http.client, since this runs beside the engine all the time."""

import json
import threading
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

from dsv4_stack.guest.hooks import dsv4_door
from dsv4_stack.guest.serving import movement, question
from dsv4_stack.guest.serving.question import Answer, Question
from dsv4_stack.guest.serving.watch import Sight

LOOK_S: Final = 5.0
ANSWER_S: Final = 300.0
# Too many requests, no service for now: neither says anything about the model.
_BUSY: Final = (429, 503)


class Api:
    """`secret` is what the door lets pass. One at a time asks a question; its answer is taken once."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        self._headers = {dsv4_door.PASS_HEADER.decode(): secret}
        self._answers: list[Answer] = []

    def look(self, now: float, progress: object) -> Sight:
        """What /health, /metrics and the door say. An API that does not answer is a sight too."""
        answer = self._answers.pop(0) if self._answers else None
        status, _ = self._request("GET", "/health")
        if status != 200:
            return Sight(now=now, status=status, progress=progress, answer=answer)
        found = movement.totals(self.text("/metrics"))
        return Sight(
            now=now,
            status=status,
            movement=movement.movement(found) or None,
            in_flight=_most(self.in_flight(), movement.running(found)),
            progress=progress,
            answer=answer,
        )

    def in_flight(self) -> int | None:
        """Users' requests that the API has taken and not yet answered to their end; None where it does not say."""
        try:
            return int(self.json(dsv4_door.IN_FLIGHT)["in_flight"])
        except (ValueError, TypeError, KeyError):
            return None

    def ask(self, asked: Question, within_s: float, first: Callable[[], None] = lambda: None) -> None:
        """In the background, after what has to be done first; a later `look` brings the answer."""
        threading.Thread(target=self._ask, args=(asked, within_s, first), daemon=True).start()

    def _ask(self, asked: Question, within_s: float, first: Callable[[], None]) -> None:
        first()
        self._answers.append(self.answer_to(asked, within_s))

    def prefill(self, tokens: Sequence[int], within_s: float) -> str:
        """Why a prompt was not answered, or nothing."""
        body = {"prompt": list(tokens), "max_tokens": 1, "temperature": 0}
        status, text = self._request("POST", "/v1/completions", body, within_s)
        return "" if status == 200 else f"{status}: {text[:200].decode(errors='replace')}" if status else "no answer"

    def answer_to(self, asked: Question, within_s: float = ANSWER_S) -> Answer:
        return _answer(*self._request("POST", "/v1/completions", asked.body, within_s))

    def json(self, path: str) -> Any:  # noqa: ANN401
        """None where there is no JSON."""
        try:
            return json.loads(self.text(path))
        except ValueError:
            return None

    def text(self, path: str) -> str:
        """Nothing where nobody answers with 200."""
        status, body = self._request("GET", path)
        return body.decode(errors="replace") if status == 200 else ""

    def _request(self, method: str, path: str, body: Any = None, within_s: float = LOOK_S) -> tuple[int, bytes]:  # noqa: ANN401
        """Status and body; (0, b"") where nobody answers in time."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=within_s)
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException):
            return 0, b""
        finally:
            connection.close()


def _most(taken: int | None, running: int) -> int | None:
    """An engine without a request may still have some in its API, which alone knows them."""
    return max(taken, running) if taken is not None else running or None


def _answer(status: int, body: bytes) -> Answer:
    if status == 0:
        return Answer(is_lost=True)
    if status != 200:
        return Answer(refusal=f"{status}: {body[:200].decode(errors='replace')}", is_busy=status in _BUSY)
    try:
        return question.answer_of(json.loads(body))
    except ValueError:
        return Answer(refusal=f"no JSON: {body[:200].decode(errors='replace')}")
