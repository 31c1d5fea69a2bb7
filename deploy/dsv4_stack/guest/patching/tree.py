"""A vLLM tree as a patch sees it: the files on disk, and above them edits that only memory holds."""

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, NotFoundError, PatchError
from dsv4_stack.guest.patching import releases
from dsv4_stack.guest.patching.releases import Release

_VERSION: Final = "vllm/_version.py"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """`root` is the directory that holds `vllm/`; paths are relative to it, with slashes."""

    root: Path
    edits: Mapping[str, bytes] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """Raises PatchError where there is no such file."""
        if path in self.edits:
            return self.edits[path]
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise PatchError(
                f"{path}: {error.strerror}", f"look into {self.root}: is it the vLLM of the pins?"
            ) from None

    def has(self, path: str) -> bool:
        return path in self.edits or (self.root / path).is_file()

    def module(self, path: str) -> ast.Module:
        """Raises PatchError where it is no Python."""
        try:
            return ast.parse(self.read(path))
        except (SyntaxError, ValueError) as error:
            raise PatchError(f"{path}: cannot be parsed: {error}", "unpack the vLLM of the pins again") from None

    def edited(self, edits: Mapping[str, bytes]) -> "Tree":
        return Tree(root=self.root, edits={**self.edits, **edits})


def version_of(tree: Tree) -> str:
    """What the tree says of itself, "" where it says nothing."""
    if not (tree.root / _VERSION).is_file():
        return ""
    values = [
        str(node.value.value)
        for node in tree.module(_VERSION).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and "version" in _names(node)
    ]
    return values[0] if values else ""


def release_of(tree: Tree) -> Release:
    """The release that the tree says it is. Raises ConfigError for a commit's tree, PatchError without a version."""
    version = version_of(tree)
    if not version:
        raise PatchError(f"{_VERSION}: says no version", "name the release that it is, or is like, with --release")
    try:
        return releases.parse(version)
    except ConfigError as error:
        raise ConfigError(
            f"{tree.root} is a commit's: {error.message}", "name the release that it is like with --release"
        ) from None


def _names(node: ast.Assign) -> set[str]:
    return {target.id for target in node.targets if isinstance(target, ast.Name)}


def find_vllm() -> Path:
    """The directory that holds the installed `vllm/`, found without importing it. Raises NotFoundError."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError("vllm is not installed for this Python", "name an unpacked vLLM with --source DIR")
    return Path(spec.submodule_search_locations[0]).parent


def root_of(source: Path) -> Path:
    """The directory that holds `vllm/`, for that directory or for `vllm` itself. Raises NotFoundError."""
    source = source.resolve()
    for root in (source, source.parent):
        if (root / "vllm" / "__init__.py").is_file() and source in {root, root / "vllm"}:
            return root
    raise NotFoundError(f"{source} holds no vllm package", "name the directory that an unpacked vLLM wheel gives")
