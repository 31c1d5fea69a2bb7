"""Measure the materializer beside curl, hf and aria2c against a Hub on loopback, as ratios of one run.

Prints the tables; the exit code is 1 where a bar is missed, 2 where nothing could be measured. Everything lies in
temporary folders: on a tmpfs, which needs room for twice the checkpoint, and on a disk, which needs room for it once.
"""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import bars, checkpoint, cold, deep, figures, hub, machine, resume, tables, warm
from harness.checkpoint import Checkpoint
from harness.contenders import DSV4, HF, Contender, Job
from harness.figures import IN_MEMORY, ON_DISK, PACED, Measured
from harness.hub import Hub
from harness.processes import Process
from harness.resume import Resumed
from harness.rounds import Rounds
from harness.warm import Contained

MARKER: Final = "figures"
DOCUMENT: Final = Path(__file__).parents[2] / "docs/materialize.md"
WARM_SHARDS: Final = 46
REAL_SHARDS: Final = 4
REAL_TENSORS: Final = 105_000
"""W4A16's weights: packed, scales and shapes of 35,000 matrices."""
STARTED: Final = time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured: shards and their bytes cold and paced, the pace, and how often.

    A run that is killed brings each shard in `killed_s` seconds, and ends at `kill_at` of all bytes. The run that has
    as many tensors as a real one brings few bytes: it is for its memory, over as many connections as there may be.
    """

    shards: int
    shard_bytes: int
    paced_shard_bytes: int
    real_shard_bytes: int
    rate: float
    latency_s: float
    rounds: Rounds
    warm_rounds: Rounds
    openssl_s: int
    killed_s: float
    kill_at: float = 0.6


FULL: Final = Scale(
    shards=8,
    shard_bytes=256 << 20,
    paced_shard_bytes=64 << 20,
    real_shard_bytes=32 << 20,
    rate=8e6,
    latency_s=0.05,
    rounds=Rounds(kept=3),
    warm_rounds=Rounds(kept=10),
    openssl_s=3,
    killed_s=2,
)
QUICK: Final = Scale(
    shards=4,
    shard_bytes=4 << 20,
    paced_shard_bytes=2 << 20,
    real_shard_bytes=4 << 20,
    rate=8e6,
    latency_s=0.01,
    rounds=Rounds(kept=1, dropped=0),
    warm_rounds=Rounds(kept=1, dropped=0),
    openssl_s=1,
    killed_s=3,
)


def measure(scale: Scale, memory: Path, disk: Path, image: str) -> Measured:
    """Everything, in the order of the fields. `memory` and `disk` are empty folders. Raises ValueError, OSError."""
    root = memory / "hub"
    large = checkpoint.write(root, "bench/large", shards=scale.shards, shard_bytes=scale.shard_bytes)
    paced = checkpoint.write(root, "bench/paced", shards=scale.shards, shard_bytes=scale.paced_shard_bytes, seed=100)
    real = checkpoint.write(
        root, "bench/real", shards=REAL_SHARDS, shard_bytes=scale.real_shard_bytes, tensors=REAL_TENSORS, seed=300
    )
    tiny = checkpoint.write(root, "bench/tiny", shards=scale.shards, shard_bytes=1 << 10, seed=300)
    small = checkpoint.write(root, "bench/warm", shards=WARM_SHARDS, shard_bytes=1 << 10, seed=200)
    with hub.serving(root, memory / "hub.log") as server:
        say("cold")
        in_memory = cold.measure(IN_MEMORY, server, large, memory, scale.rounds)
        on_disk = cold.measure(ON_DISK, server, large, disk, scale.rounds)
        nothing = cold.measure((DSV4,), server, tiny, memory, scale.rounds)
        say("cold, slow connections")
        server.set(rate=scale.rate, latency_s=scale.latency_s)
        slow = cold.measure(PACED, server, paced, memory, scale.rounds)
        many = cold.measure((DSV4,), server, real, memory, scale.rounds)
        say("resume")
        # At a pace, because a run that is over at once cannot be killed at a certain byte.
        server.set(rate=scale.shard_bytes / scale.killed_s)
        resumed = {tool: _resumed(tool, server, large, memory, scale) for tool in (DSV4, HF)}
        server.set()
        say("deep")
        complete = _complete(server, large, memory)
        hashed = deep.measure(complete, large.size, scale.rounds, seconds=scale.openssl_s)
        say("warm")
        job = _complete(server, small, disk)
        warm.grow(job.dest, warm.APPARENT_BYTES)
        started = warm.measure(job, server, scale.warm_rounds)
    why_not = warm.why_no_container(image)
    return Measured(
        memory=in_memory,
        disk=on_disk,
        paced=slow,
        real=many[DSV4],
        start_s=nothing[DSV4].wall_s,
        resumed=resumed,
        warm=started,
        contained={} if why_not else _contained(job, image, scale.warm_rounds),
        why_not_contained=why_not,
        deep=hashed,
        sizes=_sizes(scale),
        cores=os.cpu_count() or 1,
    )


def _resumed(tool: Contender, server: Hub, wanted: Checkpoint, place: Path, scale: Scale) -> list[Resumed]:
    return [resume.measure(tool, server, wanted, place, share=scale.kill_at) for _ in range(scale.rounds.kept)]


def _complete(server: Hub, wanted: Checkpoint, place: Path) -> Job:
    """The job of a folder that is complete."""
    home = place / "complete" / "home"
    home.mkdir(parents=True)
    revision = server.revision(wanted.repo)
    dest = home.with_name("dest")
    job = Job(url=server.url, repo=wanted.repo, revision=revision, paths=(), dest=dest, home=home)
    with Process(DSV4.command(job), home / "log") as process:
        ended = process.end(600)
    if found := checkpoint.problems(wanted, dest):
        raise ValueError(f"{DSV4.name} ended with {ended.exit_code}:\n{ended.output[-2000:]}{found}")
    return job


def _contained(job: Job, image: str, rounds: Rounds) -> dict[str, Contained]:
    ways = {"read-write": False, "read-only": True}
    return {how: warm.measure_contained(job, image, rounds, read_only=flag) for how, flag in ways.items()}


def _sizes(scale: Scale) -> dict[str, str]:
    files = f"{scale.shards} shards of {{}} MiB"
    large = files.format(scale.shard_bytes >> 20)
    paced = files.format(scale.paced_shard_bytes >> 20)
    return {
        "cold": large,
        "paced": f"{paced}, {scale.rate / 1e6:.0f} MB/s for each connection, {scale.latency_s:.2f} s before an answer",
        "real": f"{REAL_SHARDS} shards of {scale.real_shard_bytes >> 20} MiB that have {REAL_TENSORS} tensors",
        "resume": f"{large}, killed at {scale.kill_at:.0%} of the bytes",
        "warm": f"{WARM_SHARDS} shards, {warm.APPARENT_BYTES >> 30} GiB of holes",
    }


def say(text: str) -> None:
    """On stderr, with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dsv4-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small run of everything; its figures mean nothing")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), metavar="DIR", help="a tmpfs")  # noqa: S108
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), metavar="DIR", help="on a disk")  # noqa: S108
    parser.add_argument("--image", default=warm.image_of_tree(), help="the init image; default: this tree's")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOCUMENT.name} as well")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="so many runs in a row; each has to hold")
    args = parser.parse_args()
    runs = [_measured(args) for _ in range(max(1, args.runs))]
    command = shlex.join([".venv/bin/python", "scripts/bench/materialize.py", *sys.argv[1:]])
    text = figures.as_markdown(runs, machine.line("curl", "aria2c", "openssl", packages=("huggingface-hub",)), command)
    print(text)
    if args.write:
        tables.write(DOCUMENT, MARKER, text)
    held = [bar for found in runs for bar in figures.bars(found)]
    print("\n".join(map(str, held)), file=sys.stderr)
    return 1 if bars.missed(held) else 0


def _measured(args: argparse.Namespace) -> Measured:
    with scratch(args.memory) as memory, scratch(args.disk) as disk:
        return measure(QUICK if args.quick else FULL, memory, disk, args.image)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
