"""What an engine's state is, from one look at it after the other. It looks at nothing itself and knows no clock."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dsv4_stack.guest.serving.movement import Movement
from dsv4_stack.guest.serving.patience import Patience
from dsv4_stack.guest.serving.question import Answer, Question

# A wrong answer is asked for again at once: one that is wrong so often in a row is no accident.
TRIES: Final = 3


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WRONG = "wrong"
    HUNG = "hung"
    STOPPING = "stopping"


class Order(StrEnum):
    """What is to be done now."""

    ASK = "ask"
    """Ask the golden question, in the background."""
    REPORT = "report"
    """Say where the engine stands, and what may help."""
    END = "end"
    """End the engine: its restart policy starts it again."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What one look found. `status` is that of the engine's /health, 0 where nobody answers.

    `movement` is None where the engine does not say; `in_flight` are the requests that users wait for, None where that
    is not known; `progress` is anything that differs as long as a start goes on, and `answer` is what came to the
    question since the last look.
    """

    now: float
    status: int = 0
    movement: Movement | None = None
    in_flight: int | None = 0
    progress: object = None
    answer: Answer | None = None


@dataclass(kw_only=True)
class Watch:
    """`state` and the `reason` for it; `said` collects what belongs into the log."""

    question: Question | None
    patience: Patience
    began: float
    state: State = State.STARTING
    reason: str = "the engine is not up yet"
    answers: int = 0
    wrong: int = 0
    hangs: int = 0
    said: list[str] = field(default_factory=list)
    ready_after_s: float | None = None
    _moved_at: float = 0.0
    _movement: Movement | None = None
    _progress: object = None
    _progress_at: float = 0.0
    _asked_at: float | None = None
    _again_at: float = 0.0
    _busy: str = ""
    _is_asking: bool = False
    _in_a_row: int = 0
    _hung_at: float = 0.0
    _before_hang: State = State.READY
    is_over: bool = False

    def __post_init__(self) -> None:
        self._moved_at = self._progress_at = self.began

    @property
    def is_open(self) -> bool:
        """Whether users' requests may pass."""
        return self.state == State.READY

    def quiet_s(self, now: float) -> float:
        """For how long nothing has moved while something should."""
        return now - self._moved_at

    def pass_over(self, seconds: float) -> None:
        """For so long nobody looked: what stood still then, may have had to."""
        self._moved_at += seconds
        self._progress_at += seconds
        self._hung_at += seconds

    def stop(self) -> None:
        self.state, self.reason = State.STOPPING, "the engine is being stopped"

    def look(self, sight: Sight) -> list[Order]:
        """Take in one look; returns what is to be done."""
        if self.state == State.STOPPING or self.is_over:
            return []
        self._note_movement(sight)
        if sight.answer is not None:
            self._judge(sight.answer, sight.now)
        if self.state == State.STARTING:
            return self._start(sight)
        return self._hang(sight) or self._ask_again(sight)

    def _note_movement(self, sight: Sight) -> None:
        moved = sight.movement is not None and sight.movement != self._movement
        idle = sight.in_flight == 0 and not self._is_asking
        is_answered = sight.answer is not None and not sight.answer.is_lost
        if sight.status == 200 and (moved or idle or is_answered):
            self._moved_at = sight.now
        self._movement = sight.movement if sight.movement is not None else self._movement
        if moved or sight.progress != self._progress:
            self._progress, self._progress_at = sight.progress, sight.now

    def _judge(self, answer: Answer, now: float) -> None:
        assert self.question  # noqa: S101 - only a question has an answer
        self._is_asking = False
        if answer.is_lost:
            self._asked_at = None
            return
        if answer.is_busy:
            self._wait_for(answer, now)
            return
        self.answers += 1
        problem = self.question.problem_of(answer)
        if not problem:
            self._in_a_row = 0
            self._become_ready(now, f"{self.question.prompt!r} is answered with {answer.text!r}")
            return
        self.wrong += 1
        self._in_a_row += 1
        count = f"{self._in_a_row} of {TRIES}" if self._in_a_row <= TRIES else f"{self._in_a_row} in a row"
        self.said.append(f"wrong answer, {count}: {problem}")
        if self._in_a_row >= TRIES:
            self._become(State.WRONG, problem)
        else:
            self._asked_at = None

    def _wait_for(self, answer: Answer, now: float) -> None:
        """Asked again after a while: what is busy need not be asked all the time."""
        self._asked_at, self._again_at = None, now + self.patience.wrong_s
        reason = f"the question is not taken: {answer.refusal}"
        if reason != self._busy:
            self.said.append(reason)
        self._busy = reason
        if self.state == State.STARTING:
            self.reason = reason

    def _become_ready(self, now: float, why: str) -> None:
        if self.ready_after_s is None:
            self.ready_after_s = now - self.began
            why += f"; {self.ready_after_s:.0f} s after the start"
        self._become(State.READY, why)

    def _become(self, state: State, reason: str) -> None:
        if state != self.state:
            self.said.append(f"{state}: {reason}")
            self.state, self.reason = state, reason

    def _start(self, sight: Sight) -> list[Order]:
        if sight.now - self.began >= self.patience.ready_s:
            return self._give_up(f"not ready after {self.patience.ready_s:.0f} s")
        if sight.status == 200 and self.question is None:
            self._become_ready(sight.now, "/health answers; there is no question to ask")
            return []
        if sight.status == 200 and not self._is_asking and self._asked_at is None and sight.now >= self._again_at:
            self.reason = "the engine is up, and the golden question is asked"
            return [self._ask(sight.now)]
        if sight.now - self._progress_at >= self.patience.stall_s:
            self.said.append(f"the start has not moved for {sight.now - self._progress_at:.0f} s")
            self._progress_at = sight.now
            return [Order.REPORT]
        return []

    def _hang(self, sight: Sight) -> list[Order]:
        quiet = self.quiet_s(sight.now)
        # An engine may be slow with a long prompt; an API that does not even answer is not slow.
        is_quiet = quiet >= (self.patience.hang_s if sight.status == 200 else self.patience.quiet_s)
        if self.state != State.HUNG:
            return self._become_hung(sight, quiet) if is_quiet else []
        if not is_quiet:
            self._become(self._before_hang, "the engine moves again")
            return []
        return self._give_up(self.reason) if sight.now - self._hung_at >= self.patience.grace_s else []

    def _become_hung(self, sight: Sight, quiet: float) -> list[Order]:
        self.hangs += 1
        self._hung_at, self._before_hang = sight.now, self.state
        run = "requests may run" if sight.in_flight is None else f"{sight.in_flight} requests run"
        what = run if sight.status == 200 else "the API does not answer"
        self._become(State.HUNG, f"{what}, and nothing has moved for {quiet:.0f} s")
        return [Order.REPORT]

    def _ask_again(self, sight: Sight) -> list[Order]:
        if self.question is None or self._is_asking or sight.status != 200:
            return []
        is_quiet = self.quiet_s(sight.now) >= self.patience.quiet_s
        return [self._ask(sight.now)] if is_quiet or self._is_due(sight.now) else []

    def _is_due(self, now: float) -> bool:
        every = self.patience.wrong_s if self.state == State.WRONG else self.patience.recheck_s
        if self._asked_at is None:
            return now >= self._again_at
        return 0 < every <= now - self._asked_at

    def _ask(self, now: float) -> Order:
        self._asked_at, self._is_asking = now, True
        return Order.ASK

    def _give_up(self, why: str) -> list[Order]:
        self.is_over = True
        self.said.append(f"{why}: the engine is ended")
        self.reason = why
        return [Order.END] if self.state == State.HUNG else [Order.REPORT, Order.END]
