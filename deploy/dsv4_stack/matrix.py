"""The engine matrix: which patches each engine still needs and why, what it wants, and what to beware of."""

from dataclasses import dataclass
from typing import Any

from dsv4_stack import assets
from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.patching import series
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.series import Patch
from dsv4_stack.pins import Engine, Pins
from dsv4_stack.releases import Facts, Hazard


@dataclass(frozen=True, kw_only=True)
class Row:
    """One engine. `refused` says by option why it cannot work there."""

    engine: Engine
    default: bool
    facts: Facts
    needed: tuple[Patch, ...]
    upstream: tuple[Patch, ...]
    hazards: tuple[Hazard, ...]
    refused: dict[str, str]


def rows(pins: Pins) -> list[Row]:
    """Every engine of the pins, in their order. Raises ConfigError, NotFoundError, PatchError."""
    patches = series.load(assets.PATCHES)
    return [row(pins, engine, patches) for engine in pins.engines.values()]


def row(pins: Pins, engine: Engine, patches: tuple[Patch, ...] = ()) -> Row:
    patches = patches or series.load(assets.PATCHES)
    needs = needed(pins, engine, patches)
    return Row(
        engine=engine,
        default=engine.name == pins.default_engine,
        facts=pins.releases[engine.releases[0]],
        needed=needs,
        upstream=tuple(patch for patch in patches if patch not in needs),
        hazards=hazards(pins, engine),
        refused=refused(pins, engine),
    )


def releases_of(pins: Pins, engine: Engine) -> tuple[Release, ...]:
    """The releases that speak for the engine."""
    return tuple(pins.releases[name].release for name in engine.releases)


def needed(pins: Pins, engine: Engine, patches: tuple[Patch, ...] = ()) -> tuple[Patch, ...]:
    """The patches that the engine is made with. Raises ConfigError where its releases take different ones."""
    patches = patches or series.load(assets.PATCHES)
    releases = releases_of(pins, engine)
    takes = [
        [(patch, patch.layout(release)) for patch in series.needed(patches, release)]
        for release in dict.fromkeys(releases)
    ]
    if any(other != takes[0] for other in takes):
        raise ConfigError(
            f"engine {engine.name}: its releases {', '.join(map(str, releases))} take different patches",
            "name releases between which upstream changed nothing that a patch touches",
        )
    return tuple(patch for patch, _ in takes[0])


def hazards(pins: Pins, engine: Engine) -> tuple[Hazard, ...]:
    """What any of the engine's releases has; the CPU build cannot run the model, so none of it concerns that."""
    if engine.image != "serve":
        return ()
    releases = releases_of(pins, engine)
    return tuple(hazard for hazard in pins.hazards.values() if any(release in hazard.span for release in releases))


def refused(pins: Pins, engine: Engine) -> dict[str, str]:
    """Option -> why it cannot work with the engine."""
    if engine.image != "serve":
        return {"mtp": "vLLM's CPU build cannot run DeepSeek-V4"}
    reasons: dict[str, list[str]] = {}
    for hazard in hazards(pins, engine):
        if hazard.refuses:
            reasons.setdefault(hazard.refuses, []).append(f"{hazard.what} ({hazard.source})")
    return {option: "; ".join(texts) for option, texts in reasons.items()}


def summary(found: Row) -> dict[str, Any]:
    """One engine as `dsv4 engines --json` has it."""
    engine, facts = found.engine, found.facts
    return {
        "engine": engine.name,
        "default": found.default,
        "about": engine.about,
        "vllm": engine.version,
        "base": engine.base,
        "locked": engine.base_locked and (engine.wheel is None or bool(engine.wheel.sha256)),
        "releases": list(engine.releases),
        "patches": [{"patch": patch.name, "why": patch.fails_without} for patch in found.needed],
        "upstream": [{"patch": patch.name, "since": patch.first_release} for patch in found.upstream],
        "torch": facts.torch,
        "transformers": facts.transformers,
        "model_runner": facts.runner,
        "mtp": {"possible": "mtp" not in found.refused, "why": found.refused.get("mtp", "")},
        "hazards": [
            {"name": hazard.name, "what": hazard.what, "mend": hazard.mend, "env": hazard.env, "source": hazard.source}
            for hazard in found.hazards
            if not hazard.refuses
        ],
    }


def markdown(entries: list[dict[str, Any]]) -> str:
    """The table that README shows, of what `summary` gives."""
    head = ("engine", "vLLM", "patches", "torch", "transformers", "model runner", "MTP", "")
    lines = [_cells(head), _cells(("---",) * len(head)), *(_cells(_row(entry)) for entry in entries)]
    return "".join(lines)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    numbers = ", ".join(patch["patch"][:4] for patch in entry["patches"]) or "none"
    return (
        f"`{entry['engine']}`{' (default)' if entry['default'] else ''}",
        entry["vllm"],
        numbers,
        entry["torch"],
        f"`{entry['transformers']}`",
        entry["model_runner"],
        "opt-in" if entry["mtp"]["possible"] else "refused",
        entry["about"],
    )


def _cells(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"
