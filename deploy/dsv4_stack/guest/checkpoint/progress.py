"""What a long run says: lines on stderr, with a bar below them on a terminal, or JSON lines on stdout."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from dsv4_stack.guest import terminal
from dsv4_stack.guest.checkpoint import progress_view
from dsv4_stack.guest.checkpoint.progress_view import PREFIX
from dsv4_stack.guest.checkpoint.tally import Snapshot, Tally
from dsv4_stack.guest.files import amount
from dsv4_stack.guest.terminal import Block

_FRAME_S: Final = 0.25
_SAMPLE_S: Final = 1.0


class Progress:
    """Counts and reports; safe to call from every thread. Bytes are counted while files are followed.

    `stream` takes the place of stderr. Where there is no bar, a run says every `every_s` seconds how far it is.
    """

    def __init__(self, *, as_json: bool, stream: TextIO | None = None, every_s: float = 10.0) -> None:
        self._as_json = as_json
        self._stream = stream
        self._every_s = every_s
        self._writing = threading.Lock()
        self._block: Block | None = None
        self._tally = Tally({})

    def say(self, event: str, text: str, **fields: object) -> None:
        """`text` for people, `event` and its fields for programs."""
        with self._writing:
            if self._as_json:
                print(json.dumps({"event": event, **fields}), flush=True)
            elif text and self._block:
                self._block.say(f"{PREFIX}{text}")
            elif text:
                print(f"{PREFIX}{text}", file=self._out, flush=True)

    def advance(self, path: str, count: int) -> None:
        """Bytes of a file that came over the network or were copied."""
        self._tally.advance(path, count)

    def reuse(self, path: str, count: int) -> None:
        """Bytes of a file that need not be fetched: of a partial file, a hard link, a clone."""
        self._tally.reuse(path, count)

    def retreat(self, path: str) -> None:
        """The file starts again at zero."""
        self._tally.retreat(path)

    def finished(self, path: str, size: int) -> None:
        self._tally.finish(path)
        self.say("file", f"{path}, {amount(size)}", path=path, size=size)

    def passed(self, path: str) -> None:
        """As `finished`, of a file that was there: not worth a line."""
        self._tally.finish(path)

    @contextmanager
    def following(self, sizes: Mapping[str, int]) -> Iterator[None]:
        """Report on the way how much there is of the files in `sizes`, bytes by path, all that this run has to bring.

        A run that was long enough to report once ends with a summary; one that fails does not.
        """
        tally = self._tally = Tally(sizes)
        if not self._as_json and terminal.can_draw(self._out):
            self._block = Block(self._out)
        over = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(over,), name="progress", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            over.set()
            ticker.join()
            self._take_down()
        whole = tally.summary()
        if whole.elapsed_s >= self._every_s:
            self.say("progress", progress_view.summary(whole), **progress_view.fields(whole))

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stderr

    def _tick(self, over: threading.Event) -> None:
        """Look often, for the rates' sake, and report seldom."""
        pause = min(_FRAME_S if self._block else _SAMPLE_S, self._every_s)
        reports = max(round(self._every_s / pause), 1)
        # Whoever read it may have gone; what is fetched is worth more than that it is told.
        with suppress(OSError):
            tick = 0
            while not over.wait(pause):
                tick += 1
                now = self._tally.snapshot()
                if self._block:
                    self._draw(now)
                elif tick % reports == 0:
                    self.say("progress", progress_view.line(now), **progress_view.fields(now))

    def _draw(self, now: Snapshot) -> None:
        columns, rows = terminal.size(self._out)
        with self._writing:
            if self._block:
                self._block.draw(progress_view.screen(now, columns, rows))

    def _take_down(self) -> None:
        with self._writing, suppress(OSError):
            block, self._block = self._block, None
            if block:
                block.draw(())
