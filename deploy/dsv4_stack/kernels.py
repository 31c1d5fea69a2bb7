"""An engine's compiled kernels, from this machine's cache volume into an archive and back."""

import os
from collections.abc import Callable
from pathlib import Path

from dsv4_stack import engine
from dsv4_stack.errors import NotFoundError, UsageError
from dsv4_stack.plan import CACHE_MOUNT, Plan

Say = Callable[[str], None]


def export_to(plan: Plan, file: Path, say: Say) -> None:
    """Raises NotFoundError, ConfigError, UsageError."""
    up = f"run: dsv4 up --profile {plan.profile.name}"
    if plan.cache_volume not in engine.volumes():
        raise NotFoundError(f"there is no volume {plan.cache_volume}: nothing was compiled here yet", up)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    words = ("caches", "pack", CACHE_MOUNT, "--label", plan.cache_label)
    try:
        with beside.open("wb") as out:
            engine.on_volume(plan.init.reference, plan.cache_volume, CACHE_MOUNT, *words, out=out)
        beside.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", "name a file that can") from None
    finally:
        beside.unlink(missing_ok=True)
    say(f"warm: {file} holds the kernels of {plan.cache_label}")


def import_from(plan: Plan, file: Path, say: Say) -> None:
    """Into the volume that the next `up` takes. Raises NotFoundError, IntegrityError, UsageError."""
    serve = engine.states(plan.project).get("serve")
    if serve and serve.status == "running":
        down = f"run: dsv4 down --profile {plan.profile.name}"
        raise UsageError(f"{plan.project} runs, and writes its own kernels there", down)
    words = ("caches", "unpack", CACHE_MOUNT, "--label", plan.cache_label)
    try:
        with file.open("rb") as source:
            engine.on_volume(plan.init.reference, plan.cache_volume, CACHE_MOUNT, *words, source=source)
    except FileNotFoundError:
        step = "run: dsv4 warm --export FILE, on a machine that is warm"
        raise NotFoundError(f"there is no file {file}", step) from None
    say(f"warm: {plan.cache_volume} has the kernels of {file}")
