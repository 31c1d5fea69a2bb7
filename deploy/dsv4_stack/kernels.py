"""An engine's compiled kernels, from this machine's cache volume into an archive and back."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from dsv4_stack import stack, volumes
from dsv4_stack.errors import Dsv4Error, NotFoundError, UsageError
from dsv4_stack.plan import CACHE_MOUNT, UID, Plan
from dsv4_stack.stack import Say

# The volume's, in the compose file.
_KEY: Final = "cache"


def export_to(plan: Plan, file: Path, say: Say) -> None:
    """Raises NotFoundError, ConfigError, UsageError."""
    up = f"run: dsv4 up --profile {plan.profile.name}"
    if plan.cache_volume not in volumes.names():
        raise NotFoundError(f"there is no volume {plan.cache_volume}: nothing was compiled here yet", up)
    _refuse_used(plan)
    stack.build_init(plan, say)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    words = ("caches", "pack", CACHE_MOUNT, "--label", plan.cache_label)
    try:
        with beside.open("wb") as out:
            volumes.run(plan.init.reference, plan.cache_volume, CACHE_MOUNT, *words, out=out)
        beside.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", "name a file that can") from None
    finally:
        beside.unlink(missing_ok=True)
    say(f"warm: {file} holds the kernels of {plan.cache_label}")


def import_from(plan: Plan, file: Path, say: Say) -> None:
    """Into the volume that the next `up` takes. Raises NotFoundError, IntegrityError, UsageError, NoSpaceError."""
    _refuse_used(plan)
    with _opened(file) as source:
        stack.build_init(plan, say)
        _unpack(plan, source)
    say(f"warm: {plan.cache_volume} has the kernels of {file}")


def _refuse_used(plan: Plan) -> None:
    """An engine at work writes here, and reads what it finds at any time. Raises UsageError."""
    users = volumes.users(plan.cache_volume)
    if not users:
        return
    named = ", ".join(f"{user.container} ({user.status})" for user in users)
    others = [user.container for user in users if user.project != plan.project]
    steps = [f"docker stop {' '.join(others)}"] if others else []
    if len(others) < len(users):
        steps.append(f"dsv4 down --profile {plan.profile.name}")
    raise UsageError(f"the volume {plan.cache_volume} is used by {named}", f"run: {' && '.join(steps)}")


def _opened(file: Path) -> BinaryIO:
    """Raises NotFoundError, UsageError."""
    try:
        return file.open("rb")
    except FileNotFoundError:
        step = "run: dsv4 warm --export FILE, on a machine that is warm"
        raise NotFoundError(f"there is no file {file}", step) from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", "name a file that can") from None


def _unpack(plan: Plan, source: BinaryIO) -> None:
    """A volume that had to be made for it does not outlive its failure."""
    is_new = plan.cache_volume not in volumes.names()
    if is_new:
        volumes.make(plan.cache_volume, plan.project, _KEY)
    # The numbers that the engine's container will run as.
    user = ("--uid", os.environ.get("DSV4_UID") or str(UID), "--gid", os.environ.get("DSV4_GID") or str(UID))
    words = ("caches", "unpack", CACHE_MOUNT, "--label", plan.cache_label, *user)
    try:
        volumes.run(plan.init.reference, plan.cache_volume, CACHE_MOUNT, *words, source=source)
    except Dsv4Error:
        if is_new:
            with suppress(Dsv4Error):
                volumes.remove(plan.cache_volume)
        raise
