"""Faults of the run itself: it is killed, it has company, and what it works on moves meanwhile."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from harness import checkpoint, disk
from harness.contenders import hooked
from harness.processes import Process
from harness.resume import wait_for
from harness.scenarios import LIMIT_S, Scenario
from harness.stage import Stage

_TEN_YEARS_NS: Final = 10 * 365 * 24 * 3600 * 10**9
_SECOND_CONTENT: Final = 4711
_STOPPED: Final = frozenset({128 + signal.SIGINT, 128 + signal.SIGTERM})
_KILLED: Final = frozenset({-signal.SIGKILL})


def all_of_them(kills: int, seed: int) -> list[Scenario]:
    """`kills` scenarios are of kill -9, at shares of the bytes that `seed` decides."""
    shares = [random.Random(seed + number).random() for number in range(kills)]  # noqa: S311 - to be repeated
    return [
        *(
            # The last bytes may have come before the signal does.
            Scenario(name=f"kill -9, {kills} points", exits=_KILLED | {0}, during=_signalled(signal.SIGKILL, share))
            for share in shares
        ),
        Scenario(name="SIGTERM at 50 %", exits=_STOPPED, during=_signalled(signal.SIGTERM, 0.5)),
        Scenario(name="two writers", exits=frozenset({0}), during=_join),
        Scenario(
            name="kill -9, and main moves before the next run", exits=_KILLED, fault=_of_main, during=_move_after_kill
        ),
        Scenario(name="kill -9, then all mtimes ten years ahead", exits=_KILLED, during=_date_ahead_after_kill),
        Scenario(name="the clock jumps ten years on, then 36 back", exits=frozenset({0}), fault=_jumping_clock),
    ]


def _signalled(number: signal.Signals, share: float) -> Callable[[Stage, Process], str]:
    def during(stage: Stage, process: Process) -> str:
        _signal_at(process, number, stage, share)
        return ""

    return during


def _signal_at(process: Process, number: signal.Signals, stage: Stage, share: float) -> None:
    wait_for(process, stage.hub, share * stage.wanted.size)
    process.send(number)
    process.end(LIMIT_S)


def _join(stage: Stage, process: Process) -> str:
    """Start a second run of the same, and let both end."""
    with stage.start("second.log") as second:
        first_ended, second_ended = process.end(LIMIT_S), second.end(LIMIT_S)
    sent = stage.hub.sent() / stage.wanted.size
    waited = any('"waiting"' in ended.output for ended in (first_ended, second_ended))
    if second_ended.exit_code != 0:
        raise ValueError(f"the second run ends with {second_ended.exit_code}")
    return f"the other exits with {second_ended.exit_code}{', one waited' if waited else ''}; {sent:.2f}x sent to both"


@contextmanager
def _of_main(stage: Stage) -> Iterator[None]:
    stage.revision = "main"
    yield


def _move_after_kill(stage: Stage, process: Process) -> str:
    """Another content of the same size in one shard; the folder shall hold the new one in the end."""
    _signal_at(process, signal.SIGKILL, stage, 0.6)
    shard = stage.wanted.folder / stage.wanted.shards[1]
    size = shard.stat().st_size
    checkpoint.write_shard(shard, [checkpoint.tensor_name(1)], checkpoint.payload(shard), seed=_SECOND_CONTENT)
    if shard.stat().st_size != size:
        raise ValueError(f"{shard} has another size now")
    stage.wanted = checkpoint.read(stage.wanted.folder, stage.wanted.repo)
    return "the shard that moved is fetched whole"


def _date_ahead_after_kill(stage: Stage, process: Process) -> str:
    _signal_at(process, signal.SIGKILL, stage, 0.6)
    for path, stat in list(disk.files(stage.dest)):
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + _TEN_YEARS_NS))
    return ""


@contextmanager
def _jumping_clock(stage: Stage) -> Iterator[None]:
    stage.env = hooked("clock-jump")
    yield
    stage.env = {}
