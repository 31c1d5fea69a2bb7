"""A plan's rendered project on this machine: where it lies, what is laid over it, and the paths that it is given."""

import os
from pathlib import Path
from typing import Final

from dsv4_stack import render
from dsv4_stack.plan import OVERLAYS, Plan

Files = tuple[Path, ...]
"""Compose files, in the order in which they are laid over each other."""

# Settings that name a file or a folder of this machine.
PATHS: Final = (
    *("DSV4_WEIGHTS_DIR", "DSV4_EXTRA_CA", "DSV4_WHEELS", "HF_TOKEN_FILE"),
    *("DSV4_KEYS_DIR", "DSV4_EDGE_CERTS"),
)
# What `down`, `logs` and the others find of the last `up`.
_OVERLAYS: Final = "overlays"


def folder(plan: Plan) -> Path:
    """Where a plan's rendered project lives."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "dsv4" / plan.project


def prepare(plan: Plan) -> Files:
    """Render the plan's project; returns its compose files without what may be laid over them."""
    root = folder(plan)
    root.mkdir(parents=True, exist_ok=True)
    render.write_project(render.render_plan(plan), plan.lock, root, ours=True)
    return _files(root, ())


def lay_over(plan: Plan, overlays: tuple[str, ...]) -> Files:
    """As `prepare`, with these laid over it from now on."""
    prepare(plan)
    root = folder(plan)
    (root / _OVERLAYS).write_text("".join(f"{name}\n" for name in overlays), encoding="utf-8")
    return _files(root, overlays)


def overlays(plan: Plan) -> tuple[str, ...]:
    """What the last `up` laid over the stack."""
    try:
        named = (folder(plan) / _OVERLAYS).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return ()
    return tuple(name for name in OVERLAYS if name in named)


def prepared(plan: Plan) -> Files:
    """The compose files as the running stack was started from; rendered now where there are none."""
    root = folder(plan)
    if not (root / "compose/compose.yaml").exists():
        prepare(plan)
    return _files(root, overlays(plan))


def _files(root: Path, overlays: tuple[str, ...]) -> Files:
    return tuple(root / "compose" / f"{name}.yaml" for name in ("compose", *overlays))


def environment(overrides: dict[str, str]) -> dict[str, str]:
    """The overrides, and every path among the settings made absolute: Compose would read it from its own folder."""
    settings = {**os.environ, **overrides}
    paths = {name: settings[name] for name in PATHS if settings.get(name)}
    return overrides | {name: str(Path(value).expanduser().absolute()) for name, value in paths.items()}
