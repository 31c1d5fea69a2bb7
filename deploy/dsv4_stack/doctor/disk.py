"""Room for the weights, and for the engine's image where Docker keeps images on this machine."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dsv4_stack import engine
from dsv4_stack.doctor import weights
from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.doctor.tools import Info
from dsv4_stack.doctor.weights import GIB
from dsv4_stack.errors import NoEngineError, NoSpaceError
from dsv4_stack.plan import Plan

# vllm/vllm-openai, uncompressed, in December 2025: https://github.com/vllm-project/vllm/pull/22377. What the build adds
# is not measured.
IMAGE_BYTES: Final = 28_600_000_000
# Where images are with the containerd image store, the default of new installations from 29.0 on:
# https://docs.docker.com/engine/storage/containerd/, https://github.com/google/cadvisor/issues/3643
CONTAINERD = Path("/var/lib/containerd")
_SNAPSHOTTER: Final = ["driver-type", "io.containerd.snapshotter.v1"]


def findings(plan: Plan, overrides: dict[str, str], info: Info) -> Iterator[Finding]:
    place = _existing(weights.folder(plan, overrides))
    missing = weights.missing_bytes(plan, overrides)
    yield _weights(plan, place, missing)
    store = _image_store(info)
    if store and plan.engine.image == "serve":
        yield _image(plan, store, missing if _are_together(store, place) else 0)


def _weights(plan: Plan, place: Path, missing: int) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {place}, {missing / GIB:.1f} GiB still to fetch"
    if free >= missing:
        return ok("disk", found)
    mend = f"name a folder on a larger disk: dsv4 up --profile {plan.profile.name} --weights DIR"
    return wrong("disk", found, mend, NoSpaceError)


def _image(plan: Plan, store: Path, beside: int) -> Finding:
    """`beside` are bytes that the same disk has to take too."""
    if _is_there(plan):
        return ok("disk for images", "the engine's image is there already")
    free = shutil.disk_usage(store).free
    also = f" beside {beside / GIB:.1f} GiB of weights" if beside else ""
    found = f"{free / GIB:.1f} GiB free in {store}, {IMAGE_BYTES / GIB:.1f} GiB for vLLM's image{also}"
    if free >= IMAGE_BYTES + beside:
        return ok("disk for images", found)
    elsewhere = f", or weights elsewhere: dsv4 up --profile {plan.profile.name} --weights DIR" if beside else ""
    return wrong(
        "disk for images", found, f"make room: docker image prune; docker builder prune{elsewhere}", NoSpaceError
    )


def _is_there(plan: Plan) -> bool:
    """The image, or the one that it is built on."""
    base = os.environ.get(plan.serve.base_variable) or plan.serve.base
    try:
        return any(engine.image(reference) for reference in (plan.serve.reference, base))
    except NoEngineError:
        return False


def _image_store(info: Info) -> Path | None:
    """Where Docker keeps images, None where that is not on this machine."""
    contained = _SNAPSHOTTER in (info.get("DriverStatus") or [])
    store = CONTAINERD if contained else Path(info.get("DockerRootDir") or "")
    return store if store.is_absolute() and os.path.isdir(store) else None  # noqa: PTH112 - as `_existing`


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))  # noqa: PTH110 - False where it may not look


def _are_together(one: Path, other: Path) -> bool:
    """Whether both lie on one disk."""
    return one.stat().st_dev == other.stat().st_dev
