"""vLLM as a child process: started with the hooks in place, stopped without a loss, or ended with all it has."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsv4_stack.guest import hooks

HOOKS: Final = Path(hooks.__file__).parent
# After the drain nothing is in flight, and vLLM has only itself to put away: 6 s were measured for its CPU build.
CLOSE_S: Final = 20.0
_POLL_S: Final = 0.1


class Engine:
    """A started engine. Its output is this process's."""

    def __init__(self, command: Sequence[str], variables: dict[str, str]) -> None:
        environment = {**os.environ, **variables}
        # This process's own path is not vLLM's: it sees the hooks, and what the image had before.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOOKS), os.environ.get("DSV4_PYTHONPATH")]))
        self.command = tuple(command)
        # A group of its own, so that all of it can be ended at once.
        self._process = subprocess.Popen(command, env=environment, process_group=0)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 and the signal's number where one ended it, as a shell counts."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so long."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.exit_code is not None

    def drain(self, in_flight: Callable[[], int | None], limit_s: float) -> int | None:
        """Wait until nothing is in flight, then stop it. Returns how many requests were cut off, None if it never said.

        An API that does not say how many may be busy with them; one that is gone had those that it named last.
        """
        deadline = time.monotonic() + limit_s
        left = said = in_flight()
        while said != 0 and time.monotonic() < deadline and self.exit_code is None:
            time.sleep(_POLL_S)
            said = in_flight()
            left = left if said is None else said
        self.close()
        return left

    def close(self) -> None:
        """SIGTERM to vLLM itself, which stops its own; then an end to what is left."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        self.wait(CLOSE_S)
        self.end()

    def end(self) -> None:
        """SIGKILL to every process of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
