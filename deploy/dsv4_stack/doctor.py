"""A look at this machine before anything is touched: every finding at once, each with what mends it."""

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack import engine, wheels
from dsv4_stack.errors import ConfigError, Dsv4Error, NoEngineError, NoSpaceError, NotReadyError, UsageError
from dsv4_stack.guest.convert import CONFIG_NAME, parse
from dsv4_stack.guest.lint import matching, report
from dsv4_stack.guest.patching.tree import Tree
from dsv4_stack.lock import repos_of
from dsv4_stack.plan import Plan

GIB: Final = 1 << 30
# What the base repository needs where no lock knows it to the byte: vLLM's log says 158.19 GiB.
WEIGHTS_BYTES: Final = 160 * GIB


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`mend` is the command or change that helps, empty where all is well. `error` is what `up` fails with."""

    subject: str
    ok: bool
    found: str
    mend: str = ""
    error: type[Dsv4Error] = NotReadyError

    def __str__(self) -> str:
        return (
            f"ok    {self.subject}: {self.found}"
            if self.ok
            else f"WRONG {self.subject}: {self.found}\n      {self.mend}"
        )


def examine(plan: Plan, overrides: dict[str, str]) -> list[Finding]:
    """Every check, whatever the one before it found."""
    return [
        *_engine(),
        *_gpus(plan),
        *_disk(plan, overrides),
        *_port(plan, overrides),
        *_config(plan, overrides),
    ]


def raise_for(findings: list[Finding]) -> None:
    """The first wrong finding's error, with the text of all of them."""
    wrong = [finding for finding in findings if not finding.ok]
    if wrong:
        listed = "\n".join(f"  {finding.subject}: {finding.found}\n    {finding.mend}" for finding in wrong)
        raise wrong[0].error(
            f"this machine does not fit the profile:\n{listed}",
            "mend it, or go on with: dsv4 up --skip-doctor",
        )


def _engine() -> Iterator[Finding]:
    try:
        versions = engine.versions()
    except NoEngineError as error:
        yield Finding(subject="docker engine", ok=False, found=error.message, mend=error.next_step, error=NoEngineError)
        return
    yield _at_least("docker engine", versions["engine"], engine.MINIMUM_ENGINE)
    yield _at_least("docker compose", versions["compose"], engine.MINIMUM_COMPOSE)
    yield _at_least("docker buildx", versions["buildx"], (0, 10))


def _at_least(subject: str, version: str, minimum: tuple[int, ...]) -> Finding:
    wanted = ".".join(map(str, minimum))
    return Finding(
        subject=subject,
        ok=engine.version_tuple(version) >= minimum,
        found=version or "not there",
        mend=f"install {wanted} or newer; on Debian: scripts/ensure-docker",
        error=NoEngineError,
    )


def _gpus(plan: Plan) -> Iterator[Finding]:
    machine = plan.profile.machine
    if not machine.gpus:
        return
    gpus = nvidia_smi("name,compute_cap,memory.total")
    yield Finding(
        subject="GPUs",
        ok=len(gpus) >= machine.gpus,
        found=f"{len(gpus)} of {machine.gpus}" + (f" ({gpus[0][0]})" if gpus else ", nvidia-smi lists none"),
        mend=f"run on a machine with {machine.gpus} GPUs, or choose another of: dsv4 profiles",
    )
    for index, (name, capability, _) in enumerate(gpus[: machine.gpus]):
        yield Finding(
            subject=f"GPU {index}",
            ok=capability == machine.compute_capability,
            found=f"{name}, compute capability {capability}",
            mend=f"this checkpoint's kernels need exactly {machine.compute_capability} (H100, H200)",
        )


def nvidia_smi(fields: str) -> list[list[str]]:
    """One row per GPU; none where there is no driver."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    rows = done.stdout.splitlines() if done.returncode == 0 else []
    return [[part.strip() for part in row.split(",")] for row in rows]


def _disk(plan: Plan, overrides: dict[str, str]) -> Iterator[Finding]:
    folder = _weights(plan, overrides)
    present = _size_of(folder / plan.profile.weights.name)
    needed = max(0, needed_bytes(plan) - present)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    yield Finding(
        subject="disk",
        ok=free >= needed,
        found=f"{free / GIB:.1f} GiB free in {existing}, {needed / GIB:.1f} GiB still to fetch",
        mend=f"name a folder on a larger disk: dsv4 up --profile {plan.profile.name} --weights DIR",
        error=NoSpaceError,
    )


def _weights(plan: Plan, overrides: dict[str, str]) -> Path:
    settings = {**os.environ, **overrides}
    return Path(settings.get("DSV4_WEIGHTS_DIR") or plan.profile.weights.directory)


def needed_bytes(plan: Plan) -> int:
    """The checkpoint's size in bytes: to the byte where the lock holds it, else the published one."""
    repos = repos_of(plan.checkpoint)
    if not repos:
        return 0
    locked = plan.lock.repos.get(plan.checkpoint.base.repo)
    return sum(entry.size for entry in locked.files.values()) if locked else WEIGHTS_BYTES


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _port(plan: Plan, overrides: dict[str, str]) -> Iterator[Finding]:
    settings = {**os.environ, **overrides}
    bind = settings.get("DSV4_BIND") or plan.profile.serve.bind
    port = port_number(settings.get("DSV4_PORT") or str(plan.profile.serve.port))
    free = _can_bind(bind, port) or _is_ours(plan, port)
    yield Finding(
        subject="port",
        ok=free,
        found=f"{bind}:{port} is {'free or ours' if free else 'taken'}",
        mend=f"choose another: dsv4 up --profile {plan.profile.name} --port N",
    )


def _can_bind(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def port_number(text: str) -> int:
    """A TCP port. Raises UsageError."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UsageError(f"the port should be a number from 1 to 65535, not {text!r}", "mend --port or DSV4_PORT")
    return int(text)


def _is_ours(plan: Plan, port: int) -> bool:
    try:
        serve = engine.states(plan.project).get("serve")
    except NoEngineError:
        return False
    return serve is not None and serve.reserved.endswith(f":{port}")


def _config(plan: Plan, overrides: dict[str, str]) -> Iterator[Finding]:
    """What the engine would make of the config.json that is materialized; nothing before it is, and for the demo."""
    path = _weights(plan, overrides) / plan.profile.weights.name / CONFIG_NAME
    if plan.profile.demo_hub or not path.is_file():
        return
    release, ranks = plan.facts.release, plan.profile.machine.gpus
    tree = wheels.cached(plan.facts.wheel)
    try:
        found = report.examine(
            parse(path.read_bytes(), str(path)),
            release=release,
            ranks=ranks,
            found_by=matching.of_tree(Tree(root=tree)) if tree else None,
        )
    except ConfigError as error:
        yield Finding(subject="config", ok=False, found=error.message, mend=error.next_step, error=ConfigError)
        return
    problems = found.problems + (found.draft_problems if plan.profile.serve.mtp else ())
    yield Finding(
        subject="config",
        ok=not problems,
        found="; ".join(problems) or found.summary(),
        mend=f"materialize {path} again" + (", or leave mtp off" if found.draft_problems else ""),
        error=ConfigError,
    )
