"""Faults of the Hub and of what lies between: wrong answers, late answers, none."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from harness import checkpoint, disk
from harness.resume import wait_for
from harness.scenarios import LIMIT_S, Scenario
from harness.stage import RATE, REPO, Stage

SHARDS: Final = 4
_NAMES: Final = tuple(checkpoint.shard_name(number, SHARDS) for number in range(1, SHARDS + 1))
_SHARDS: Final = [f"{REPO}/{name}" for name in _NAMES]
_SHARD: Final = _SHARDS[1]
_DONE: Final = frozenset({0})
_WRONG: Final = frozenset({6})
_NETWORK: Final = frozenset({8})
_MIB: Final = 1 << 20
_CDN: Final = "localhost"  # the Hub is asked at 127.0.0.1, so this is another host

Fault = Callable[[Stage], AbstractContextManager[None]]


def all_of_them() -> list[Scenario]:
    return [
        Scenario(name="a body is cut short, twice", exits=_DONE, fault=_hub(cut_times={_SHARD: 2})),
        Scenario(name="every body of a shard is cut short", exits=_NETWORK, fault=_hub(cut=[_SHARD])),
        Scenario(name="wrong bytes of the right size, always", exits=_WRONG, fault=_hub(flip=[_SHARD])),
        Scenario(name="wrong bytes of the right size, once", exits=_DONE, fault=_hub(flip_times={_SHARD: 1})),
        Scenario(name="429 with Retry-After, twice", exits=_DONE, fault=_refused(429, retry_after="1", times=2)),
        Scenario(name="503 with Retry-After, twice", exits=_DONE, fault=_refused(503, retry_after="1", times=2)),
        Scenario(name="500, twice", exits=_DONE, fault=_refused(500, times=2)),
        Scenario(name="500, always", exits=_NETWORK, fault=_refused(500)),
        Scenario(
            name="signed URLs expire after 0.2 s, and a body is cut short, twice",
            exits=_DONE,
            fault=_hub(redirect={"lifetime_s": 0.2}, redirect_host=_CDN, cut_times={_SHARD: 2}),
        ),
        Scenario(name="signed URLs work once", exits=_DONE, fault=_hub(redirect={"uses": 1}, redirect_host=_CDN)),
        Scenario(
            name="a connection stalls after 1 MiB, twice",
            exits=_DONE,
            fault=_hub(stall={_SHARD: _MIB}, stall_times={_SHARD: 2}),
        ),
        Scenario(name="every connection stalls at once", exits=_NETWORK, fault=_hub(stall={"*": 0})),
        Scenario(name="a shard drips, 1 KB/s", exits=_NETWORK, fault=_hub(drip={_SHARD: 1000.0})),
        Scenario(
            name="kill -9 at 50 %, then 403 without a code",
            exits=frozenset({5}),
            fault=_after_a_kill(_hub(refuse={"*": {"status": 403}})),
        ),
        Scenario(
            name="kill -9 at 50 %, then a page of HTML for each shard",
            exits=_NETWORK,
            fault=_after_a_kill(_hub(page=_SHARDS)),
        ),
        Scenario(
            name="kill -9 at 50 %, then other ranges than asked for",
            exits=_NETWORK,
            fault=_after_a_kill(_hub(wrong_range=["*"])),
        ),
        Scenario(name="the Hub takes requests and answers none", exits=_NETWORK, fault=_hub(silent=True)),
        Scenario(
            name="the index names a shard that is not there", exits=frozenset({4}), fault=_of_main_with(_lose_a_shard)
        ),
        Scenario(name="a shard's header is wrong", exits=_WRONG, fault=_of_main_with(_spoil_a_header)),
    ]


def _hub(**faults: object) -> Fault:
    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.hub.set(rate=RATE, **faults)
        yield

    return fault


def _refused(status: int, **rest: object) -> Fault:
    return _hub(refuse={_SHARD: {"status": status, **rest}})


def _after_a_kill(fault: Fault) -> Fault:
    """The run with the fault finds what a killed one has left."""

    @contextmanager
    def later(stage: Stage) -> Iterator[None]:
        with stage.start("before.log") as process:
            wait_for(process, stage.hub, 0.5 * stage.wanted.size)
            process.send(signal.SIGKILL)
            process.end(LIMIT_S)
        stage.there = min(disk.written(stage.dest), stage.wanted.size)
        with fault(stage):
            yield

    return later


def _of_main_with(spoil: Callable[[Stage], None]) -> Fault:
    """The repository itself is wrong in the first run, and right in the next, at another commit of `main`."""

    @contextmanager
    def fault(stage: Stage) -> Iterator[None]:
        stage.revision = "main"
        shard = stage.wanted.folder / _NAMES[1]
        right = shard.read_bytes()
        spoil(stage)
        yield
        shard.write_bytes(right)

    return fault


def _lose_a_shard(stage: Stage) -> None:
    (stage.wanted.folder / _NAMES[1]).unlink()


def _spoil_a_header(stage: Stage) -> None:
    """A tensor that ends beyond the file."""
    shard = stage.wanted.folder / _NAMES[1]
    content = shard.read_bytes()
    size = str(checkpoint.payload(shard))
    shard.write_bytes(content.replace(f"[0, {size}]".encode(), f"[0, {'9' * len(size)}]".encode(), 1))
