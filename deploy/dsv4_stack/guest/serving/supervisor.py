"""The process that stands over vLLM: it looks, asks, says what it found, opens and closes the door, and stops it."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from dsv4_stack.errors import Dsv4Error, NotReadyError
from dsv4_stack.guest import gate
from dsv4_stack.guest.serving import evidence, notice, processes, report, warmth
from dsv4_stack.guest.serving.api import Api
from dsv4_stack.guest.serving.engine import Engine
from dsv4_stack.guest.serving.notice import Board, Notice
from dsv4_stack.guest.serving.patience import Patience
from dsv4_stack.guest.serving.question import Question
from dsv4_stack.guest.serving.watch import Order, State, Watch

# A look and what comes of it take a few seconds; longer than this between two, and this process stood still as well: a
# paused container, or a report that had much to gather.
_AWAY_S: Final = 30.0
# Readiness should be seen at once; what comes after is a matter of a minute.
STARTING_EVERY_S: Final = 0.5
EVERY_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where everything is. `run` is a tmpfs for the door, the state and the stacks."""

    model: Path
    run: Path
    caches: Path
    port: int = 8000
    notice_port: int = notice.PORT


class Supervisor:
    """One engine from its start to its end."""

    def __init__(self, site: Site, command: Sequence[str], question: Question | None, patience: Patience) -> None:
        self._site = site
        self._patience = patience
        self._question = question
        self._board = Board(site.run)
        self._stacks = site.run / "stacks"
        self._stacks.mkdir(parents=True, exist_ok=True)
        secret = secrets.token_hex(16)
        self._api = Api(site.port, secret)
        self._started_at = time.time()
        self._watch = Watch(question=question, patience=patience, began=time.monotonic())
        self._warnings: tuple[str, ...] = ()
        self._warned_at = time.monotonic()
        self._in_flight: int | None = 0
        self._looked_at = time.monotonic()
        self._cold = warmth.lengths()
        self._is_stopped = False
        self._put()
        variables = {
            "DSV4_DOOR": str(self._board.door),
            "DSV4_PASS": secret,
            "DSV4_STACKS": str(self._stacks),
            # A crash in native code leaves the stacks of Python behind.
            "PYTHONFAULTHANDLER": "1",
        }
        self._engine = Engine([*command, "--middleware", "dsv4_door.Door"], variables)

    def run(self) -> int:
        """Until the engine ends or is to be stopped; returns the exit code for this process."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        server = notice.serve(self._board, self._site.notice_port)
        try:
            while not self._is_stopped and self._engine.exit_code is None:
                self._turn()
            return self._drain() if self._is_stopped else self._ended()
        finally:
            server.shutdown()
            self._engine.end()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_stopped = True

    def _turn(self) -> None:
        """One look, and what comes of it."""
        began = time.monotonic()
        starting = self._watch.state == State.STARTING
        moved = processes.progress(processes.tree(self._engine.pid), self._site.caches) if starting else None
        if (away := began - self._looked_at) >= _AWAY_S:
            self._watch.pass_over(away)
        self._looked_at = began
        sight = self._api.look(began, moved)
        self._in_flight = sight.in_flight
        for order in self._watch.look(sight):
            self._obey(order)
        self._say_what_is_new()
        self._look_at_weights()
        self._put()
        pause = STARTING_EVERY_S if starting else EVERY_S
        deadline = began + pause
        # A signal does not cut a sleep short, so none is long.
        while time.monotonic() < deadline and not self._is_stopped and not self._engine.wait(0):
            time.sleep(0.1)

    def _obey(self, order: Order) -> None:
        if order == Order.ASK and self._question:
            # Longer than a hang is waited for, so that a question that is still open counts as a request that runs.
            borne = self._patience.hang_s + 2 * self._patience.grace_s
            starting = self._watch.state == State.STARTING
            self._api.ask(self._question, self._patience.ready_s if starting else borne, self._warm)
        elif order == Order.REPORT:
            self._say_what_is_new()
            self._put()
            self._report()
        elif order == Order.END:
            self._engine.end()

    def _warm(self) -> None:
        """Once, before the first question: users shall not wait for a compiler."""
        wanted, self._cold = self._cold, ()
        for warmed in warmth.warm(self._api, wanted, warmth.vocabulary_of(self._site.model), self._patience.ready_s):
            say(f"warm: {warmed}")

    def _report(self) -> None:
        is_up = self._watch.state != State.STARTING
        found = evidence.gather(self._engine.pid, self._stacks, self._site.caches, self._engine.command, is_up=is_up)
        for line in report.lines(found):
            say(line)

    def _say_what_is_new(self) -> None:
        for line in self._watch.said:
            say(line)
        self._watch.said.clear()

    def _look_at_weights(self) -> None:
        """The engine has them in memory and goes on; but its next start would refuse them, and somebody should know."""
        now = time.monotonic()
        if now - self._warned_at < self._patience.weights_s:
            return
        self._warned_at = now
        try:
            gate.check_fast(self._site.model)
            found: tuple[str, ...] = ()
        except Dsv4Error as error:
            found = (f"the weights are no longer those that this engine was started with: {error.message}",)
        for warning in found if found != self._warnings else ():
            say(warning)
        self._warnings = found

    def _put(self) -> None:
        watch = self._watch
        self._board.put(
            Notice(
                state=watch.state,
                reason=watch.reason,
                started_at=self._started_at,
                ready_after_s=watch.ready_after_s,
                quiet_s=watch.quiet_s(time.monotonic()),
                in_flight=self._in_flight or 0,
                answers=watch.answers,
                wrong_answers=watch.wrong,
                hangs=watch.hangs,
                warnings=self._warnings,
            )
        )

    def _drain(self) -> int:
        """The door is closed first: what is let in is answered, and what comes later is told to go elsewhere."""
        was_starting = self._watch.state == State.STARTING
        self._watch.stop()
        self._put()
        if was_starting:
            self._engine.close()
            return 0
        say(f"stopping: requests in flight get {self._patience.drain_s:.0f} s")
        left = self._engine.drain(self._api.in_flight, self._patience.drain_s)
        say(f"stopped: {_cut_off(left)}")
        return 0

    def _ended(self) -> int:
        """The engine is gone and nobody asked for it."""
        code = self._engine.exit_code or 0
        self._say_what_is_new()
        if self._watch.is_over:
            raise NotReadyError(self._watch.reason, "read the report above; the restart policy starts it again")
        say(f"the engine ended by itself with exit code {code}")
        return code or NotReadyError.exit_code


def _cut_off(left: int | None) -> str:
    if left is None:
        return "the API did not say what was in flight"
    return f"{left} requests were cut off" if left else "nothing was in flight"


def say(text: str) -> None:
    """Into the container's log, beside what vLLM says."""
    print(f"dsv4: {text}", file=sys.stderr, flush=True)


def port() -> int:
    """Of the engine's API in this container."""
    return int(os.environ.get("DSV4_ENGINE_PORT", "8000"))


def site_of(model: Path) -> Site:
    """As the environment of the container says."""
    return Site(
        model=model,
        run=Path(os.environ.get("DSV4_RUN", "/run/dsv4")),
        caches=Path(os.environ.get("DSV4_CACHES", "/cache")),
        port=port(),
        notice_port=int(os.environ.get("DSV4_NOTICE_PORT", str(notice.PORT))),
    )
