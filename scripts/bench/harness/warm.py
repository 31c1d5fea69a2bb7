"""Warm: the folder is complete; what finding that out costs, with 159 GiB of shards that are holes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from harness.contenders import DSV4, Job
from harness.hub import Hub
from harness.processes import Command, Ended, Process
from harness.rounds import Rounds

APPARENT_BYTES: Final = 159 * 2**30
_DOCKERFILE: Final = Path(__file__).parents[3] / "docker/init/Dockerfile"
_LIMIT_S: Final = 60.0
# What a manifest may say of a file, and the field of its stat that this is.
_STAT_FIELDS: Final = {"size": "st_size", "mtime_ns": "st_mtime_ns", "ctime_ns": "st_ctime_ns", "inode": "st_ino"}


@dataclass(frozen=True, kw_only=True)
class Warm:
    """Medians in seconds; `shards_read` is None where the disk does not record when a file was read."""

    start_s: float
    pass_s: float
    requests: int
    read_bytes: int
    shards_read: int | None


@dataclass(frozen=True, kw_only=True)
class Contained:
    """Medians in seconds of `docker run` with the check and with `true`, one volume, one image."""

    check_s: float
    true_s: float

    @property
    def over_s(self) -> float:
        return self.check_s - self.true_s


def grow(dest: Path, size: int) -> None:
    """Make the shards of a complete folder `size` bytes of holes in all, and its manifest say so."""
    shards = sorted(dest.glob("*.safetensors"))
    for shard in shards:
        os.truncate(shard, size // len(shards))
        os.utime(shard, ns=(0, shard.stat().st_mtime_ns))  # read at the epoch: a later read shows
    path = dest / ".dsv4/manifest.json"
    document = json.loads(path.read_text())
    for shard in shards:
        entry, stat = document["files"][shard.name], shard.stat()
        entry |= {key: getattr(stat, name) for key, name in _STAT_FIELDS.items() if key in entry}
    path.write_text(json.dumps(document, indent=2) + "\n")


def measure(job: Job, hub: Hub, rounds: Rounds) -> Warm:
    """The check on this machine beside `python -c pass`, in turns. Raises ValueError where it does not pass."""
    commands = [DSV4.command(job), Command(words=(sys.executable, "-c", "pass"), env={})]
    hub.forget()
    checks, passes = _in_turns(commands, job.home / "log", rounds)
    shards = sorted(job.dest.glob("*.safetensors"))
    read = sum(shard.stat().st_atime_ns != 0 for shard in shards)
    return Warm(
        start_s=median(ended.wall_s for ended in checks),
        pass_s=median(ended.wall_s for ended in passes),
        requests=hub.requests(),
        read_bytes=max(ended.read_bytes for ended in checks),
        shards_read=read if _shows_reads(shards[0]) else None,
    )


def measure_contained(job: Job, image: str, rounds: Rounds, *, read_only: bool) -> Contained:
    """The same in a container without a network, beside one that runs `true`. Raises ValueError as `measure`."""
    volume = f"{job.dest}:/model{':ro' if read_only else ''}"
    run = ("docker", "run", "--rm", "--network", "none", "--volume", volume)
    verb = ("materialize", "--base", f"{job.repo}@{job.revision}", "--dest", "/model", "--json")
    env = {"HOME": str(job.home)} | {key: os.environ[key] for key in ("DOCKER_HOST",) if key in os.environ}
    commands = [
        Command(words=(*run, image, *verb), env=env),
        Command(words=(*run, "--entrypoint", "true", image), env=env),
    ]
    checks, trues = _in_turns(commands, job.home / "log", rounds)
    return Contained(check_s=median(ended.wall_s for ended in checks), true_s=median(ended.wall_s for ended in trues))


def image_of_tree() -> str:
    """The init image that this tree renders, whether it is built or not."""
    found = re.search(r'^LABEL io\.dsv4\.context="(\w{12})', _DOCKERFILE.read_text(), re.MULTILINE)
    return f"dsv4-stack/init:{found[1] if found else 'unknown'}"


def why_no_container(image: str) -> str:
    """Why it cannot be measured in a container here, or nothing."""
    if not shutil.which("docker"):
        return "no docker"
    done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    return "" if done.returncode == 0 else f"no image {image}; run: dsv4 build"


def _in_turns(commands: Sequence[Command], log: Path, rounds: Rounds) -> list[list[Ended]]:
    runs: list[list[Ended]] = [[] for _ in commands]
    for counts in rounds:
        for command, kept in zip(commands, runs, strict=True):
            ended = _succeed(command, log)
            if counts:
                kept.append(ended)
    return runs


def _succeed(command: Command, log: Path) -> Ended:
    with Process(command, log) as process:
        ended = process.end(_LIMIT_S)
    if ended.exit_code != 0:
        raise ValueError(f"{' '.join(command.words)} ended with {ended.exit_code}:\n{ended.output[-2000:]}")
    return ended


def _shows_reads(shard: Path) -> bool:
    """Whether this disk notes when a file was read (mounts with noatime do not)."""
    with shard.open("rb", buffering=0) as file:
        file.read(1)
    return shard.stat().st_atime_ns != 0
