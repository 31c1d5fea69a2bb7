"""Where each value of a plan comes from, and why: a profile's comments are its reasons."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.pins import Pins
from dsv4_stack.plan import Plan

_KEY: Final = re.compile(r"^([\w.-]+)\s*=")
_TABLE: Final = re.compile(r"^\[([\w.-]+)\]")
# What `docker compose up` takes from the environment instead of the profile.
FROM_ENVIRONMENT: Final = {
    "weights.directory": "DSV4_WEIGHTS_DIR",
    "serve.bind": "DSV4_BIND",
    "serve.port": "DSV4_PORT",
    "engine": "DSV4_ENGINE",
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A profile's key, the value it has in the end, where that was said, and the comment above it there."""

    key: str
    value: str
    source: str
    reason: str


def explain(plan: Plan, environment: Mapping[str, str], flags: Mapping[str, str]) -> list[Origin]:
    """Every key of the plan's profile. Precedence: flag > environment > profile (the last file that says it)."""
    said: dict[str, Origin] = {}
    for path in plan.profile.files:
        said |= {origin.key: origin for origin in _said_in(path)}
    return [_overridden(origin, environment, flags) for origin in said.values()]


def explain_pins(plan: Plan, pinned: Pins) -> list[Origin]:
    """What comes from pins.toml as it is, what dsv4.lock filled in, and what is unlocked still."""
    engine, checkpoint = plan.engine, plan.checkpoint
    origins = [
        _pin("engine.version", engine.version, engine.version),
        _pin("engine.base", engine.base, engine.base),
        Origin(
            key="engine.patches",
            value=" ".join(plan.patches),
            source=f"docker/serve/patches, as of vLLM {', '.join(engine.releases)}",
            reason="",
        ),
    ]
    as_pinned = pinned.engines[engine.name]
    if engine.wheel and as_pinned.wheel:
        origins.append(_pin("engine.wheel.url", engine.wheel.url, engine.wheel.url))
        origins.append(_pin("engine.wheel.sha256", engine.wheel.sha256, as_pinned.wheel.sha256))
    before = pinned.checkpoints[checkpoint.name]
    for name, repo, pin in (("base", checkpoint.base, before.base), ("overlay", checkpoint.overlay, before.overlay)):
        if repo and pin:
            origins.append(_pin(f"checkpoint.{name}.repo", repo.repo, repo.repo))
            origins.append(_pin(f"checkpoint.{name}.revision", repo.revision, pin.revision))
    return origins


def _pin(key: str, value: str, as_pinned: str) -> Origin:
    source = "pins.toml" if as_pinned else "dsv4.lock" if value else "unlocked"
    return Origin(key=key, value=value, source=source, reason="")


def _overridden(origin: Origin, environment: Mapping[str, str], flags: Mapping[str, str]) -> Origin:
    variable = FROM_ENVIRONMENT.get(origin.key, "")
    if flag := flags.get(origin.key, ""):
        source = f"--{origin.key.rpartition('.')[2].replace('directory', 'weights')}"
        return Origin(key=origin.key, value=flag, source=source, reason=origin.reason)
    if value := environment.get(variable, ""):
        return Origin(key=origin.key, value=value, source=f"${variable}", reason=origin.reason)
    return origin


def _said_in(path: Path) -> Iterator[Origin]:
    table, comment = "", []  # type: tuple[str, list[str]]
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        if header := _TABLE.match(line):
            table = f"{header[1]}."
        elif (key := _KEY.match(line)) and key[1] != "extends":
            value = line.partition("=")[2].strip()
            yield Origin(key=table + key[1], value=value, source=path.name, reason=" ".join(comment))
        comment = []
