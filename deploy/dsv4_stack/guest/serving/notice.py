"""What the watch found, for everybody else: a state file, the door, and /ready and /metrics over HTTP."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dsv4_stack.guest.serving.watch import State

PORT = 8001
STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """`reason` is why the state is what it is. Times are seconds; `ready_after_s` is None until it was ready once."""

    state: State
    reason: str
    started_at: float
    ready_after_s: float | None
    quiet_s: float
    in_flight: int
    answers: int
    wrong_answers: int
    hangs: int
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return f"{self.state}: {self.reason}"


class Board:
    """Where the last notice hangs. `folder` is a tmpfs; the door's file lies there too."""

    def __init__(self, folder: Path) -> None:
        self.door = folder / "door"
        self._file = folder / STATE
        self._notice: Notice | None = None
        self._gpus = gpus()

    def put(self, notice: Notice) -> None:
        if self._notice is None or (self._notice.state, self._notice.reason) != (notice.state, notice.reason):
            _replace(self.door, "" if notice.state == State.READY else notice.line)
        self._notice = notice
        _replace(self._file, json.dumps(asdict(notice)))

    @property
    def ready(self) -> tuple[int, str]:
        """Status and text of /ready."""
        if self._notice is None:
            return 503, "starting: the watch has not looked yet"
        return (200 if self._notice.state == State.READY else 503), self._notice.line

    @property
    def metrics(self) -> str:
        return "".join(_metrics(self._notice, self._gpus)) if self._notice else ""


def gpus() -> int:
    """How many GPUs this engine's profile has; 0 for one on CPUs."""
    return int(os.environ.get("DSV4_GPUS") or 0)


def _metrics(notice: Notice, gpu_count: int) -> Iterator[str]:
    """Prometheus text: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    yield from _metric("dsv4_state", "gauge", "1 for the state that the engine is in", "")
    yield from (f'dsv4_state{{state="{state}"}} {int(state == notice.state)}\n' for state in State)
    for name, kind, help_text, value in (
        ("dsv4_start_time_seconds", "gauge", "when the engine was started, in seconds since 1970", notice.started_at),
        ("dsv4_ready_after_seconds", "gauge", "from the start to the golden answer", notice.ready_after_s),
        ("dsv4_quiet_seconds", "gauge", "for how long nothing has moved while requests run", notice.quiet_s),
        ("dsv4_in_flight_requests", "gauge", "requests taken and not yet answered to their end", notice.in_flight),
        ("dsv4_answers_total", "counter", "answers to the golden question", notice.answers),
        ("dsv4_wrong_answers_total", "counter", "answers to the golden question that were wrong", notice.wrong_answers),
        ("dsv4_hangs_total", "counter", "times that requests ran and nothing moved", notice.hangs),
        ("dsv4_warnings", "gauge", "what else is not as it was at the start", len(notice.warnings)),
        ("dsv4_gpus", "gauge", "GPUs that the engine runs on; 0 on CPUs", gpu_count),
    ):
        if value is not None:
            yield from _metric(name, kind, help_text, f"{name} {value:.17g}\n")


def _metric(name: str, kind: str, help_text: str, sample: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n{sample}"


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)  # noqa: PTH105


def serve(board: Board, port: int) -> ThreadingHTTPServer:
    """Listen, in the background, until `shutdown`. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/ready":
                self._say(*board.ready)
            elif self.path == "/metrics":
                self._say(200, board.metrics)
            else:
                self._say(404, "there is /ready and /metrics")

        def _say(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """The log is the engine's."""

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
