"""Engines in processes of their own, each with a home directory that holds whatever caches it fills."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dsv4_stack.plan import CACHES

TESTS: Final = Path(__file__).resolve().parents[1]
# Of what vLLM logs: which method and which kernel it chose.
_CHOICE: Final = re.compile(r"\] ((?:Using|Selected) .*(?:Method|backend|Kernel|kernel|PrepareAndFinalize|Experts).*)$")
# Memory is given, not measured, so that several engines can start on one GPU at a time.
COMMON: Final[Mapping[str, Any]] = {
    "skip_tokenizer_init": True,
    "trust_remote_code": True,
    "tensor_parallel_size": 1,
    "disable_custom_all_reduce": True,
    "kv_cache_dtype": "fp8",
    "block_size": 256,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.05,
    "kv_cache_memory_bytes": 512 << 20,
    "enforce_eager": True,
    "disable_log_stats": True,
}


class EngineFailed(Exception):  # noqa: N818
    """`error` is what vLLM raised, verbatim."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an engine is started with. `overlay` holds modules to use in place of vLLM's, `packages` goes before all,
    `variables` are its own in the environment.

    One that is to `hold` imports vLLM and waits for `Engine.go`.
    """

    name: str
    model: Path
    home: Path
    arguments: Mapping[str, Any] = field(default_factory=dict)
    overlay: Path | None = None
    packages: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    hold: bool = False

    @property
    def temporary(self) -> Path:
        """Not in the home: in a container nothing there outlasts it, and no archive of caches holds it."""
        return self.home.with_name(f"{self.home.name}.tmp")

    def request(self) -> str:
        return json.dumps(
            {
                "model": str(self.model),
                "arguments": {**COMMON, **self.arguments},
                "overlay": str(self.overlay or ""),
                "hold": self.hold,
            }
        )

    def environment(self) -> dict[str, str]:
        """Its home is laid out as the stack's cache volume is."""
        paths = [str(self.packages)] * bool(self.packages) + [str(TESTS), os.environ.get("PYTHONPATH", "")]
        kept = {name: value for name, value in os.environ.items() if not re.search("CACHE|XDG_", name)}
        return {
            **kept,
            **{name: str(self.home / folder) for name, folder in CACHES.items()},
            "HOME": str(self.home / "home"),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "4",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            **self.variables,
        }


class Engine:
    """A started engine; leaving the context ends it."""

    def __init__(self, setting: Setting, logs: Path) -> None:
        for directory in (setting.home / "home", setting.temporary):
            directory.mkdir(parents=True, exist_ok=True)
        self.name = setting.name
        self.log = logs / f"{setting.name}.log"
        self.begun = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpu.engine", setting.request()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=setting.environment(),
                cwd=TESTS,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Nothing where it has ended."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.kill()
            self.process.communicate()

    def ready(self, limit: float) -> dict[str, Any]:
        """What it says of its start, with `start_s` since it was begun. Raises EngineFailed."""
        answer = self.answer(limit)
        answer["start_s"] = answer.pop("ready_at") - self.begun
        return answer

    def go(self) -> None:
        """Let one that is held start."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def generate(self, length: int, *, tokens: int = 8, seed: int = 1, limit: float = 300) -> dict[str, Any]:
        """Seconds and tokens of one prompt of random ids. Raises EngineFailed."""
        return self._asked({"length": length, "tokens": tokens, "seed": seed}, limit)

    def routing(self, length: int, *, limit: float = 300) -> list[dict[str, float]]:
        """Of one more prompt, for every layer, what `routing.spread` says. It counts from then on: nothing is to be
        measured after it. Raises EngineFailed.
        """
        answer = self._asked({"length": length, "tokens": 1, "seed": 0, "routed": True}, limit)
        found: list[dict[str, float]] = answer["routing"]
        return found

    def _asked(self, question: dict[str, Any], limit: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        return self.answer(limit)

    def answer(self, limit: float) -> dict[str, Any]:
        """The next answer. It is one line, and there is one to a question. Raises EngineFailed."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], limit)[0]:
            raise EngineFailed(f"no answer within {limit:.0f} s; its log ends with: {self._last_line()}")
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line or json.dumps({"error": f"it ended: {self._last_line()}"}))
        if "error" in answer:
            raise EngineFailed(answer["error"])
        return answer

    def choices(self) -> list[str]:
        """The log's lines that name methods and kernels, without repeats."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = (match[1] for line in lines if (match := _CHOICE.search(line)))
        return list(dict.fromkeys(found))

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "nothing")
