"""A module imports only what stands before it in the way; code for containers imports nothing of the host's."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4_stack import assets

WAY = [
    "errors",
    "guest",
    "assets",
    "tables",
    "releases",
    "pins",
    "matrix",
    "wheels",
    "registry",
    "profile",
    "lock",
    "context",
    "images",
    "plan",
    "provenance",
    "card",
    "panels",
    "dashboard",
    "render",
    "resolve",
    "project",
    "engine",
    "volumes",
    "doctor",
    "stack",
    "kernels",
    "verify",
    "figures",
    "verbs",
    "__main__",
]
MODULES = sorted(
    path.relative_to(assets.PACKAGE) for path in assets.PACKAGE.rglob("*.py") if path.name != "__init__.py"
)


def noun(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    """The package's own nouns that a module imports, wherever in it."""
    for node in ast.walk(ast.parse((assets.PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dsv4_stack":
            parts = node.module.split(".")[1:]
            yield from [parts[0]] if parts else [alias.name for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.Import):
            yield from [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dsv4_stack.")]


def test_every_module_has_its_place_in_the_way() -> None:
    assert {noun(module) for module in MODULES} == set(WAY)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_what_stands_before_it(module: Path) -> None:
    own = WAY.index(noun(module))
    assert [name for name in imports(module) if WAY.index(name) > own] == []
