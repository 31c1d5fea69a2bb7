"""Plan -> files: every Dockerfile and compose file, offline and always the same bytes. Alone uses jinja2 and yaml."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import jinja2
import yaml

from dsv4_stack import assets, dashboard
from dsv4_stack.context import Context, guest_files
from dsv4_stack.errors import ConfigError, StaleError, UsageError
from dsv4_stack.images import Image, init_image, serve_image
from dsv4_stack.lock import Lock
from dsv4_stack.pins import Pins
from dsv4_stack.plan import KEYS_DIR, OVERLAYS, UID, Plan, make_plan
from dsv4_stack.profile import DEFAULT, Profile

Rendered = dict[str, str]
"""Path relative to the project's root -> text."""

_STACK: Final = "compose/stack.yaml.j2"
_MARKER: Final = ".dsv4-project"


def render(pins: Pins, profiles: Iterable[Profile], lock: Lock) -> Rendered:
    """Dockerfile = f(pins), compose = f(pins, profile): all Dockerfiles, and one compose file for each profile."""
    contexts = [init_image(pins).context] + [serve_image(pins, engine).context for engine in pins.engines.values()]
    dockerfiles = {context.output: render_dockerfile(context) for context in contexts}
    plans = {compose_path(profile.name): make_plan(pins, profile, lock) for profile in profiles}
    overlays = render_overlays(init_image(pins), pins.beside)
    return dockerfiles | {path: render_compose(plan) for path, plan in plans.items()} | overlays


def render_plan(plan: Plan) -> Rendered:
    """One plan alone: the two Dockerfiles it builds, and its compose file as compose/compose.yaml."""
    dockerfiles = {image.context.output: render_dockerfile(image.context) for image in plan.images}
    overlays = render_overlays(plan.init, plan.beside)
    return dockerfiles | {"compose/compose.yaml": render_compose(plan)} | overlays


def compose_path(profile: str) -> str:
    """compose/compose.yaml is the default profile's, so that a bare `docker compose up` takes it."""
    return "compose/compose.yaml" if profile == DEFAULT else f"compose/compose.{profile}.yaml"


def render_dockerfile(context: Context) -> str:
    return _header(f"{context.template} and pins.toml") + _fill(context.template, context.variables)


def render_compose(plan: Plan) -> str:
    """The compose file's text, known to parse as YAML."""
    sources = f"{_STACK}, pins.toml and {', '.join(f'profiles/{path.name}' for path in plan.profile.files)}"
    text = _header(sources) + _fill(_STACK, {"plan": plan})
    yaml.safe_load(text)
    return text


def render_overlays(init: Image, beside: dict[str, str]) -> Rendered:
    """What may be laid over any stack, f(pins), and the dashboard that one of them shows."""
    variables = {"init": init, "uid": UID, "keys_dir": KEYS_DIR, "beside": beside}
    texts = {name: _fill(f"compose/{name}.yaml.j2", variables) for name in OVERLAYS}
    return {
        f"compose/{name}.yaml": _header(f"compose/{name}.yaml.j2 and pins.toml") + text for name, text in texts.items()
    } | {dashboard.PATH: dashboard.text()}


def check(rendered: Rendered, root: Path) -> None:
    """Raise StaleError that names every file under `root` that is not as rendered, or that nothing renders."""
    stale = [path for path, text in rendered.items() if _read(root / path) != text.encode()]
    orphans = sorted(_present(root) - rendered.keys())
    problems = [f"  {path}: not as rendered" for path in stale] + [f"  {path}: nothing renders it" for path in orphans]
    if problems:
        raise StaleError("rendered files are stale:\n" + "\n".join(problems), "run: dsv4 render")


def write(rendered: Rendered, root: Path) -> list[str]:
    """Write what differs and remove orphans under `root`; returns the paths that changed."""
    changed = [path for path, text in rendered.items() if _read(root / path) != text.encode()]
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(rendered[path].encode())
    orphans = sorted(_present(root) - rendered.keys())
    for path in orphans:
        (root / path).unlink()
    return changed + orphans


def write_project(rendered: Rendered, lock: Lock, root: Path, *, ours: bool = False) -> None:
    """A whole project under `root` that needs no Python: the rendered files, their build contexts and the lock.

    Only what differs is written, so that a build or a container that reads there is not disturbed. Raises UsageError
    where `root` holds a docker/ or compose/ that is not from here, unless the folder is `ours` by its place.
    """
    owned = [root / name for name in ("docker", "compose", "deploy")]
    ours = ours or (root / _MARKER).exists() or not any(map(Path.exists, owned))
    if root.resolve() == assets.ROOT or not ours:
        raise UsageError(f"{root} has a docker/, compose/ or deploy/ that is not from here", "name an empty folder")
    files = _project_files(rendered) | {assets.LOCK_NAME: lock.text().encode(), _MARKER: b"Written by dsv4 render.\n"}
    try:
        for path, content in files.items():
            if _read(root / path) != content or not _is_open(root / path):
                _replace(root, path, content)
        for present in [path for folder in owned for path in folder.rglob("*") if path.is_file()]:
            if present.relative_to(root).as_posix() not in files:
                present.unlink()
    except OSError as error:
        message = f"{error.filename or root} cannot be written: {error.strerror}"
        raise UsageError(message, "name a folder that is yours") from None


def cache_volume(compose: Path) -> str:
    """The volume of the compiled kernels, as a rendered compose file names it."""
    return str(yaml.safe_load(compose.read_text(encoding="utf-8"))["volumes"]["cache"]["name"])


def _project_files(rendered: Rendered) -> dict[str, bytes]:
    """Everything that the rendered files build from, and they themselves."""
    contexts = {str(Path(path).parent) for path in rendered if path.startswith("docker/")} | {"docker/serve"}
    sources = [path for context in contexts for path in (assets.ROOT / context).rglob("*") if path.is_file()]
    plain = [path for path in sources if not path.name.startswith("Dockerfile")]
    copied = {path.relative_to(assets.ROOT).as_posix(): path for path in plain}
    guest = [*guest_files(), assets.PACKAGE / ".dockerignore"]
    copied |= {f"deploy/dsv4_stack/{path.relative_to(assets.PACKAGE).as_posix()}": path for path in guest}
    beside = [path for path in assets.COMPOSE.rglob("*") if path.is_file() and path.parent != assets.COMPOSE]
    copied |= {path.relative_to(assets.ROOT).as_posix(): path for path in beside}
    texts = {path: text.encode() for path, text in rendered.items()}
    return {name: path.read_bytes() for name, path in copied.items()} | texts


def _replace(root: Path, name: str, content: bytes) -> None:
    """For everybody to read, whatever the umask: containers have these mounted, and their users are others."""
    root.mkdir(parents=True, exist_ok=True)
    for folder in [root / parent for parent in reversed(Path(name).parents[:-1])]:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    beside = (root / name).with_name(f".{Path(name).name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.chmod(0o644)
    beside.replace(root / name)


def _is_open(file: Path) -> bool:
    """Whether everybody may read it, and enter its folder."""
    return file.stat().st_mode & 0o044 == 0o044 and file.parent.stat().st_mode & 0o055 == 0o055


def _header(sources: str) -> str:
    return f"# Generated by `dsv4 render` from {sources}. Do not edit: change those, then render.\n"


def _fill(template: str, variables: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets.ROOT),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Dockerfiles and YAML, not HTML
    )
    environment.filters["literal"] = literal
    try:
        return environment.get_template(template).render(variables)
    except jinja2.TemplateError as error:
        raise ConfigError(f"{template} cannot be rendered: {error}", f"mend {assets.ROOT / template}") from None


def literal(value: str | list[str]) -> str:
    """A value as YAML, with `$` kept from Compose; its own `${NAME:-default}` stays a variable."""
    text = json.dumps(value, ensure_ascii=False)
    return text if "${" in text else text.replace("$", "$$")


def _present(root: Path) -> set[str]:
    """The generated files that lie under `root` now."""
    patterns = ("docker/*/Dockerfile*", "compose/*.yaml", "compose/monitoring/*.json")
    paths = [path for pattern in patterns for path in root.glob(pattern)]
    return {path.relative_to(root).as_posix() for path in paths if path.suffix != ".j2"}


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
