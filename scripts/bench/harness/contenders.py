"""Who brings a repository's files to a folder: this project, and those that it is measured against."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.processes import Command

HOOKS: Final = Path(__file__).parents[1] / "hooks"
CONNECTIONS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be brought where. `home` is a folder for the tool's own files; `flags` are this project's alone."""

    url: str
    repo: str
    revision: str
    paths: tuple[str, ...]
    dest: Path
    home: Path
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def link(self, path: str) -> str:
        return f"{self.url}/{self.repo}/resolve/{self.revision}/{path}"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """`program` is what has to be on PATH, if anything."""

    name: str
    command: Callable[[Job], Command]
    program: str = ""

    @property
    def is_there(self) -> bool:
        return not self.program or shutil.which(self.program) is not None


def _dsv4(job: Job) -> Command:
    source = f"{job.repo}@{job.revision}"
    words = ("materialize", "--base", source, "--dest", str(job.dest), "--json", *job.flags)
    return Command(words=(sys.executable, "-m", "dsv4_stack", *words), env=_environment(job))


def _dsv4_without_fsync(job: Job) -> Command:
    return _dsv4(replace(job, env={**job.env, **hooked("fsync-off")}))


def _hf(job: Job) -> Command:
    hf = Path(sys.executable).parent / "hf"
    words = (str(hf), "download", job.repo, "--revision", job.revision, "--local-dir", str(job.dest))
    return Command(words=words, env=_environment(job))


def _curl(job: Job) -> Command:
    """From a config file, as each output needs its own name."""
    job.dest.mkdir(parents=True, exist_ok=True)
    config = job.home / "curl"
    config.write_text("".join(f'url = "{job.link(path)}"\noutput = "{job.dest / path}"\n' for path in job.paths))
    flags = ("--parallel", "--parallel-max", str(CONNECTIONS), "--fail", "--location", "--silent", "--show-error")
    return Command(words=("curl", "--disable", *flags, "--config", str(config)), env=_environment(job))


def _curl_then_sha256(job: Job) -> Command:
    """curl verifies nothing; this is what its bytes cost when they are, with all cores."""
    hashing = 'find "$0" -type f -print0 | xargs -0 -n 1 -P "$(nproc)" openssl dgst -sha256'
    plain = _curl(job)
    return Command(words=("sh", "-c", f'"$@" && {hashing}', str(job.dest), *plain.words), env=plain.env)


def _aria2c(job: Job) -> Command:
    listed = job.home / "aria2c"
    listed.write_text("".join(f"{job.link(path)}\n  out={path}\n" for path in job.paths))
    flags = ("--quiet", "--no-conf", "--auto-save-interval=1", f"-j{CONNECTIONS}", "-x4", "-s4", f"--dir={job.dest}")
    return Command(words=("aria2c", *flags, f"--input-file={listed}"), env=_environment(job))


def hooked(hook: str) -> dict[str, str]:
    """The environment in which hooks/sitecustomize.py changes what a Python process sees."""
    return {"PYTHONPATH": str(HOOKS), "BENCH_HOOK": hook}


def _environment(job: Job) -> dict[str, str]:
    """The same for all: nothing of this machine's own proxies, tokens and caches, and no transfer but plain HTTP."""
    return {
        "HOME": str(job.home),
        "HF_HOME": str(job.home),
        "HF_ENDPOINT": job.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_COLOR": "1",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - it is handed on
        **job.env,
    }


DSV4: Final = Contender(name="dsv4 materialize", command=_dsv4)
DSV4_WITHOUT_FSYNC: Final = Contender(name="dsv4 materialize, fsync switched off", command=_dsv4_without_fsync)
HF: Final = Contender(name="hf download", command=_hf)
CURL: Final = Contender(name=f"curl -Z, {CONNECTIONS} connections", command=_curl, program="curl")
CURL_THEN_SHA256: Final = Contender(name="curl -Z, then openssl dgst", command=_curl_then_sha256, program="curl")
ARIA2C: Final = Contender(name=f"aria2c -j{CONNECTIONS} -x4", command=_aria2c, program="aria2c")
