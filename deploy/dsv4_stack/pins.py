"""pins.toml: which engines, images and checkpoints there are, each by digest, hash or revision."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.checkpoint.manifest import ConfigKind
from dsv4_stack.releases import Facts, Hazard, Wheel, read_facts, read_hazard, read_wheel
from dsv4_stack.tables import Table, read_toml, reject

_COMMIT: Final = "[0-9a-f]{40}"
_IMAGE: Final = r"[a-z0-9][a-z0-9._/:-]*:[\w.-]+@sha256:[0-9a-f]{64}"
_BASE: Final = rf"{_IMAGE}|[a-z0-9][a-z0-9._/:-]*:[\w.-]+"
_IMAGE_HINT: Final = "an image as name:tag@sha256:digest"
_REPO: Final = r"[\w.-]+/[\w.-]+"


BESIDE: Final = ("edge", "prometheus", "grafana", "dcgm")
"""Images that are used as they are."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A pinned vLLM: a base image, and optionally a wheel on top.

    `releases` speak for it: the one that it is, or for a commit the ones before and after it. A `base` without a
    digest is unlocked.
    """

    name: str
    about: str
    image: str
    version: str
    releases: tuple[str, ...]
    commit: str
    base: str
    torch: str
    wheel: Wheel | None

    @property
    def base_locked(self) -> bool:
        return "@" in self.base


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A Hub repository at a revision. An empty revision is unlocked, and `branch` says where to look."""

    repo: str
    revision: str
    branch: str

    @property
    def reference(self) -> str:
        """`org/name@revision`; an unlocked repository goes by its branch."""
        return f"{self.repo}@{self.revision or self.branch}"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What to materialize: the base repository's weights and the config.json of `config`'s kind.

    `seeded` repositories are made and served by the demo itself.
    """

    name: str
    seeded: bool
    config: ConfigKind
    base: Repo
    overlay: Repo | None


@dataclass(frozen=True, kw_only=True)
class Pins:
    """All of pins.toml. `beside` are the images of what may be laid over a stack, by name."""

    default_engine: str
    init_image: str
    beside: dict[str, str]
    engines: dict[str, Engine]
    releases: dict[str, Facts]
    hazards: dict[str, Hazard]
    checkpoints: dict[str, Checkpoint]


def load(path: Path) -> Pins:
    """Read and check pins.toml. Raises ConfigError with every problem at once."""
    root = Table(values=read_toml(path))
    if root.integer("schema") != 1:
        root.complain("schema", "should be 1")
    images = root.table("images")
    pins = Pins(
        default_engine=root.text("default_engine"),
        init_image=images.text("init", pattern=_IMAGE, hint=_IMAGE_HINT),
        beside={name: images.text(name, pattern=_IMAGE, hint=_IMAGE_HINT) for name in BESIDE},
        engines={name: _engine(name, table) for name, table in root.tables("engines").items()},
        releases={name: read_facts(name, table) for name, table in root.tables("releases").items()},
        hazards={name: read_hazard(name, table) for name, table in root.tables("hazards", optional=True).items()},
        checkpoints={name: _checkpoint(name, table) for name, table in root.tables("checkpoints").items()},
    )
    for engine in pins.engines.values():
        if not engine.releases or set(engine.releases) - pins.releases.keys():
            root.complain(
                f"engines.{engine.name}.releases", f"should be some of {', '.join(pins.releases) or '[releases]'}"
            )
    if pins.default_engine not in pins.engines:
        root.complain("default_engine", f"should be one of {', '.join(pins.engines)}")
    images.finish()
    root.finish()
    reject(path, root.problems)
    return pins


def _engine(name: str, table: Table) -> Engine:
    engine = Engine(
        name=name,
        about=table.text("about"),
        image=table.text("image", pattern="serve|serve-cpu", hint="serve or serve-cpu"),
        version=table.text("version"),
        releases=table.texts("releases"),
        commit=table.text("commit", "", pattern=_COMMIT, hint="a commit of 40 hex digits"),
        base=table.text("base", pattern=_BASE, hint="an image as name:tag@sha256:digest, or name:tag while unlocked"),
        torch=table.text("torch", ""),
        wheel=read_wheel(table.table("wheel")) if "wheel" in table else None,
    )
    table.finish()
    return engine


def _checkpoint(name: str, table: Table) -> Checkpoint:
    kind = table.text("config", pattern="overlay|convert|base", hint="overlay, convert or base")
    checkpoint = Checkpoint(
        name=name,
        seeded=table.truth("seeded", default=False),
        config=ConfigKind(kind) if kind in set(ConfigKind) else ConfigKind.BASE,
        base=_repo(table.table("base")),
        overlay=_repo(table.table("overlay")) if "overlay" in table else None,
    )
    if (checkpoint.config is ConfigKind.OVERLAY) != (checkpoint.overlay is not None):
        table.complain("overlay", 'belongs to config = "overlay", and only to it')
    table.finish()
    return checkpoint


def _repo(table: Table) -> Repo:
    repo = Repo(
        repo=table.text("repo", pattern=_REPO, hint="org/name"),
        revision=table.text(
            "revision", pattern=_COMMIT, hint="a commit of 40 hex digits, or empty until `dsv4 lock` knows it"
        ),
        branch=table.text("branch", "main"),
    )
    table.finish()
    return repo


def engine_named(pins: Pins, name: str) -> Engine:
    """The engine, or a ConfigError that lists the ones there are."""
    if name not in pins.engines:
        raise ConfigError(f"there is no engine {name!r}", f"choose one of: {', '.join(pins.engines)}")
    return pins.engines[name]
