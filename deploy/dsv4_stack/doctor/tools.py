"""The Docker engine, Compose and buildx: that they are there, and new enough for what the rendered files use."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dsv4_stack import engine
from dsv4_stack.doctor.finding import Finding, ok, wrong
from dsv4_stack.errors import NoEngineError

MINIMUM_BUILDX: Final = (0, 10)
_NEEDED: Final = {
    "engine": (engine.MINIMUM_ENGINE, "healthcheck.start_interval"),
    "compose": (engine.MINIMUM_COMPOSE, "!reset in overlays"),
    "buildx": (MINIMUM_BUILDX, "named build contexts and build secrets"),
}

Info = Mapping[str, Any]
"""What the engine says of itself; empty where none answers."""


def info() -> Info:
    try:
        return engine.info()
    except NoEngineError:
        return {}


def findings() -> Iterator[Finding]:
    try:
        versions = engine.versions()
    except NoEngineError as error:
        yield wrong("docker engine", error.message, error.next_step, NoEngineError)
        return
    for name, (minimum, feature) in _NEEDED.items():
        yield _at_least(f"docker {name}", versions[name], minimum, feature)


def _at_least(subject: str, version: str, minimum: tuple[int, ...], feature: str) -> Finding:
    if engine.version_tuple(version) >= minimum:
        return ok(subject, version)
    wanted = ".".join(map(str, minimum))
    mend = f"install {wanted} or newer, for {feature}; on Debian: scripts/ensure-docker"
    return wrong(subject, version or "not there", mend, NoEngineError)
