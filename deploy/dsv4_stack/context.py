"""An image's build context: which bytes go into it, and the hash of them that names the image."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dsv4_stack import assets

# What every image gets of this package, from the named build context `guest`.
GUEST_FILES: Final = ("__init__.py", "errors.py")
# What the CPU image takes from docker/serve, from the named build context `serve`.
SHARED: Final = {"serve-cpu": ("entrypoint.sh", "healthcheck.sh")}
# Named build contexts of each image, as seen from compose/. `wheels` may be a folder that holds a torch wheel; the
# default holds none.
NAMED: Final = {
    "init": {"guest": "../deploy/dsv4_stack"},
    "serve": {"guest": "../deploy/dsv4_stack"},
    "serve-cpu": {
        "guest": "../deploy/dsv4_stack",
        "serve": "../docker/serve",
        "wheels": "${DSV4_WHEELS:-../docker/serve-cpu}",
    },
}


@dataclass(frozen=True, kw_only=True)
class Context:
    """`directory` is docker/<directory>, `variables` fill its Dockerfile.j2, `digest` is over all its bytes."""

    directory: str
    dockerfile: str
    variables: dict[str, Any]
    digest: str

    @property
    def template(self) -> str:
        return f"docker/{self.directory}/Dockerfile.j2"

    @property
    def output(self) -> str:
        return f"docker/{self.directory}/{self.dockerfile}"

    @property
    def path(self) -> str:
        """As seen from compose/."""
        return f"../docker/{self.directory}"

    @property
    def named(self) -> dict[str, str]:
        return NAMED[self.directory]


def image_context(directory: str, dockerfile: str, variables: dict[str, Any]) -> Context:
    """Hash the template, its variables and every file that the image may copy, in a stable order."""
    digest = hashlib.sha256(json.dumps(variables, sort_keys=True).encode())
    for name, content in _files(directory, tuple(variables.get("patches", ()))):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    context = digest.hexdigest()
    labelled = variables | {"labels": variables["labels"] | {"io.dsv4.context": context}}
    return Context(directory=directory, dockerfile=dockerfile, variables=labelled, digest=context)


def _files(directory: str, patches: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    own = assets.DOCKER / directory
    paths = {f"own/{path.name}": path for path in own.iterdir() if path.is_file() and _counts(path)}
    paths |= {f"serve/{name}": assets.DOCKER / "serve" / name for name in SHARED.get(directory, ())}
    paths |= {f"patches/{name}": assets.PATCHES / f"{name}.patch" for name in patches}
    paths |= {f"guest/{path.relative_to(assets.PACKAGE)}": path for path in guest_files()}
    for name in sorted(paths):
        yield name, paths[name].read_bytes()


def _counts(path: Path) -> bool:
    """The template counts, what is rendered from it does not."""
    return path.suffix == ".j2" or not path.name.startswith("Dockerfile")


def guest_files() -> list[Path]:
    """The part of this package that goes into images."""
    guest = sorted((assets.PACKAGE / "guest").rglob("*.py"))
    return [assets.PACKAGE / name for name in GUEST_FILES] + guest
