"""A profile: one machine, one checkpoint, one engine. profiles/*.toml is its documentation and its schema."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dsv4_stack import assets
from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.checkpoint.names import problem_of_pattern
from dsv4_stack.tables import Table, read_toml, reject

DEFAULT: Final = "w4a8-tp2"
_SIZE: Final = r"\d+[mg]"
# Of the engine itself; without the edge its API is on loopback alone.
_NO_KEY: Final = "would stand in files, and lock out the watch; for keys of users: dsv4 up --edge"

Setting = str | int | float | bool | dict[str, Any]
"""One `vllm serve` flag's value: true is the bare flag, false and an empty table leave it out, a table becomes JSON."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    gpus: int
    compute_capability: str
    shm_size: str


@dataclass(frozen=True, kw_only=True)
class Weights:
    directory: str
    name: str
    jobs: int
    allow: tuple[str, ...]
    stall_limit_s: int


@dataclass(frozen=True, kw_only=True)
class Serve:
    name: str
    bind: str
    port: int
    ready_timeout_s: int
    drain_s: int
    warm_lengths: tuple[int, ...]
    mtp: bool
    flags: dict[str, Setting]
    env: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Health:
    """How long each kind of silence is borne, in seconds; guest/serving/patience.py says what follows."""

    stall_s: int
    quiet_s: int
    hang_s: int
    recheck_s: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A prompt, and the regular expression that its answer at temperature 0 has to contain.

    `token_ids`, where there are any, are those that the answer has to begin with.
    """

    prompt: str
    max_tokens: int
    expect: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Profile:
    name: str
    description: str
    checkpoint: str
    engine: str
    demo_hub: bool
    machine: Machine
    weights: Weights
    serve: Serve
    health: Health
    probe: Probe
    files: tuple[Path, ...]
    """The files it was read from, the most general one first."""


def names() -> list[str]:
    """The shipped profiles, the default first."""
    return sorted((path.stem for path in assets.PROFILES.glob("*.toml")), key=lambda name: (name != DEFAULT, name))


def path_of(name: str) -> Path:
    """A shipped profile by name, or any file by path. Raises ConfigError with the names there are."""
    if name in names():
        return assets.PROFILES / f"{name}.toml"
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path.resolve()
    raise ConfigError(f"there is no profile {name!r}", f"choose one of: {', '.join(names())}, or name a .toml file")


def load(name: str) -> Profile:
    """Read and check a profile with everything that it extends. Raises ConfigError with every problem at once."""
    path = path_of(name)
    values, files = _read(path, ())
    root = Table(values=values)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", path.stem):
        root.problems.append("the file's name: should be lower-case letters, digits, - and _, as it names the project")
    profile = _profile(path.stem, root, files)
    reject(path, root.problems)
    return profile


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    if path in above:
        raise ConfigError(f"{path} extends itself", f"mend {path}")
    values = read_toml(path)
    parent = values.pop("extends", None)
    if parent is None:
        return values, (path,)
    beside = path.parent / str(parent)
    inherited, files = _read(beside if beside.is_file() else path_of(str(parent)), (*above, path))
    return _merged(inherited, values), (*files, path)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins key by key; a flag's own table (JSON for vLLM) is replaced whole, and so is an empty table."""
    result = dict(under)
    for key, value in over.items():
        old = under.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) and value else value
    return result


def _profile(name: str, root: Table, files: tuple[Path, ...]) -> Profile:
    machine, weights, serve, health, probe = (
        root.table(key) for key in ("machine", "weights", "serve", "health", "probe")
    )
    profile = Profile(
        name=name,
        description=root.text("description"),
        checkpoint=root.text("checkpoint"),
        engine=root.text("engine"),
        demo_hub=root.truth("demo_hub"),
        machine=Machine(
            gpus=machine.integer("gpus"),
            compute_capability=machine.text("compute_capability", "", pattern=r"\d+\.\d", hint='like "9.0"'),
            shm_size=machine.text("shm_size", pattern=_SIZE, hint='like "16g"'),
        ),
        weights=Weights(
            directory=weights.text("directory", pattern=r"/\S+", hint="an absolute path"),
            name=weights.text("name", pattern=r"[\w.-]+", hint="a plain folder name"),
            jobs=weights.integer("jobs", minimum=1),
            allow=_patterns(weights, "allow"),
            stall_limit_s=weights.integer("stall_limit_s", 600, minimum=1),
        ),
        serve=Serve(
            name=serve.text("name"),
            bind=serve.text("bind", pattern=r"[\w.:-]+", hint='an address like "127.0.0.1"'),
            port=serve.integer("port", minimum=1, maximum=65535),
            ready_timeout_s=serve.integer("ready_timeout_s", minimum=1),
            drain_s=serve.integer("drain_s"),
            warm_lengths=_lengths(serve),
            mtp=serve.truth("mtp", default=False),
            flags=_flags(serve),
            env=_env(serve),
        ),
        health=_health(health),
        probe=Probe(
            prompt=probe.text("prompt"),
            max_tokens=probe.integer("max_tokens", minimum=1),
            expect=_expression(probe, "expect"),
            token_ids=probe.integers("token_ids", []),
        ),
        files=files,
    )
    for table in (machine, weights, serve, health, probe, root):
        table.finish()
    return profile


def _flags(serve: Table) -> dict[str, Setting]:
    """Of vLLM."""
    flags = serve.scalars("flags")
    for name, value in flags.items():
        if name.replace("_", "-") == "api-key" and value not in (False, ""):
            serve.complain(f"flags.{name}", _NO_KEY)
    return flags


def _lengths(serve: Table) -> tuple[int, ...]:
    """Tokens of the prompts that warm the engine."""
    lengths = serve.integers("warm_lengths", [])
    longest = serve.scalars("flags").get("max-model-len")
    for length in lengths:
        if length < 1 or (isinstance(longest, int) and length >= longest):
            serve.complain("warm_lengths", f"{length} should be at least 1, and below serve.flags.max-model-len")
    return lengths


def _health(table: Table) -> Health:
    health = Health(
        stall_s=table.integer("stall_s", minimum=1),
        quiet_s=table.integer("quiet_s", minimum=1),
        hang_s=table.integer("hang_s", minimum=1),
        recheck_s=table.integer("recheck_s"),
    )
    if health.hang_s <= health.quiet_s:
        table.complain("hang_s", f"should be more than quiet_s, which is {health.quiet_s}")
    return health


def _patterns(table: Table, key: str) -> tuple[str, ...]:
    """Patterns of files, each of which says what it takes."""
    patterns = table.texts(key, [])
    for pattern in patterns:
        if problem := problem_of_pattern(pattern):
            table.complain(key, f"{pattern!r} {problem}")
    return patterns


def _expression(table: Table, key: str) -> str:
    """A regular expression."""
    text = table.text(key)
    try:
        re.compile(text)
    except re.error as error:
        table.complain(key, f"should be a regular expression: {error}")
    return text


def _env(serve: Table) -> dict[str, str]:
    """Environment of the engine; an empty value leaves the variable out."""
    values = serve.scalars("env")
    if values.get("VLLM_API_KEY"):
        serve.complain("env.VLLM_API_KEY", _NO_KEY)
    for key, value in values.items():
        if not isinstance(value, str) or not re.fullmatch(r"\w+", key):
            serve.complain(f"env.{key}", "should be a string, and its name a variable's")
    return {key: str(value) for key, value in values.items() if value != ""}


def shipped() -> dict[str, Profile]:
    """Every shipped profile by name."""
    return {name: load(name) for name in names()}
