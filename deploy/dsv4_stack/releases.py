"""What pins.toml knows of vLLM's releases: their wheels by hash, what they want, and what to beware of."""

from dataclasses import dataclass
from typing import Final

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.patching import releases
from dsv4_stack.guest.patching.releases import Release, Span
from dsv4_stack.tables import Table

_SHA256: Final = "[0-9a-f]{64}"
_HEX: Final = "64 hex digits"
_UNLOCKED: Final = f"{_HEX}, or empty until `dsv4 lock` knows it"
_URL: Final = r"https?://\S+"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A wheel by its sha256, and by that of the RECORD in it, which has the sha256 of every other file.

    With `record` known, files of a wheel can be fetched and proved without the rest. Empty is unlocked.
    """

    url: str
    sha256: str
    record: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One release. `torch` and `transformers` are what its wheel requires, `runner` this model's default there."""

    release: Release
    wheel: Wheel
    torch: str
    transformers: str
    runner: str


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """What is wrong with the releases of `span`. `env` is the setting that avoids it; `refuses` what it rules out."""

    name: str
    span: Span
    what: str
    mend: str
    env: dict[str, str]
    refuses: str
    source: str


def read_wheel(table: Table) -> Wheel:
    wheel = Wheel(
        url=table.text("url", pattern=r"https?://\S+\.whl", hint="the URL of a wheel"),
        sha256=table.text("sha256", pattern=_SHA256, hint=_UNLOCKED),
        record=table.text("record", "", pattern=_SHA256, hint=_UNLOCKED),
    )
    table.finish()
    return wheel


def read_facts(name: str, table: Table) -> Facts:
    facts = Facts(
        release=_release(table, "", name),
        wheel=read_wheel(table.table("wheel")),
        torch=table.text("torch"),
        transformers=table.text("transformers"),
        runner=table.text("runner", pattern="V1|V2", hint="V1 or V2"),
    )
    table.finish()
    return facts


def read_hazard(name: str, table: Table) -> Hazard:
    span = Span(
        since=_release(table, "since", table.text("since")),
        before=_release(table, "before", table.text("before")) if "before" in table else None,
    )
    hazard = Hazard(
        name=name,
        span=span,
        what=table.text("what"),
        mend=table.text("mend"),
        env={key: str(value) for key, value in table.scalars("env").items()},
        refuses=table.text("refuses", "", pattern="mtp", hint="mtp"),
        source=table.text("source", pattern=_URL, hint="a URL"),
    )
    table.finish()
    return hazard


def _release(table: Table, key: str, text: str) -> Release:
    try:
        return releases.parse(text)
    except ConfigError as error:
        table.complain(key, error.message)
        return Release(0, 0, 0)
