"""One scenario's world: a Hub that may fail, a repository, a tool, and the folder that it fills."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.checkpoint import Checkpoint
from harness.contenders import Contender, Job
from harness.hub import Hub
from harness.processes import Command, Process

REPO: Final = "bench/faults"
RATE: Final = 10e6
"""Bytes a second of each connection, so that a run takes long enough for something to happen in it."""

PATIENCE_S: Final = 8
"""How long a tool may wait for a server that does not go on."""

_FLAGS: Final = ("--stall-timeout", "2", "--stall-limit", str(PATIENCE_S))
_ENVIRONMENT: Final = {"HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2"}


@dataclass(kw_only=True)
class Stage:
    """A fault changes it and sets it back. `wanted` is what the folder shall hold in the end.

    `there` are bytes that lay in `dest` before the fault. `prefix` are words before the tool's own. `closing` is left
    after everything, when files have been compared.
    """

    hub: Hub
    wanted: Checkpoint
    tool: Contender
    folder: Path
    dest: Path
    endpoint: str
    revision: str
    there: int = 0
    prefix: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)

    def start(self, log: str = "log") -> Process:
        job = Job(
            url=self.endpoint,
            repo=REPO,
            revision=self.revision,
            paths=tuple(self.wanted.hashes),
            dest=self.dest,
            home=self.folder / "home",
            flags=_FLAGS,
            env={**_ENVIRONMENT, **self.env},
        )
        command = self.tool.command(job)
        return Process(Command(words=(*self.prefix, *command.words), env=command.env), self.folder / log)

    def heal(self) -> None:
        """The Hub does nothing wrong any more, and counts from zero."""
        self.hub.set(rate=RATE)
        self.hub.forget()
