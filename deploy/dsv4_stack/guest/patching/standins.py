"""Pieces of a vLLM tree run on their own, with stand-ins for torch, transformers and the rest of vLLM."""

import __future__

import ast
import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching.tree import Tree

_DEFINITIONS: Final = (ast.FunctionDef, ast.ClassDef)
Namespace = dict[str, Any]
Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def run_module(tree: Tree, path: str, imports: Mapping[str, object]) -> Namespace:
    """Run a whole module; `imports` says what it gets instead of the packages named there."""
    return _run(tree.module(path).body, path, {"__builtins__": {**vars(builtins), "__import__": _importer(imports)}})


def run_definitions(tree: Tree, path: str, names: Iterable[str], namespace: Namespace) -> Namespace:
    """Run the named top-level definitions alone; `namespace` is all that they see."""
    body = tree.module(path).body
    return _run([definition(body, name, path) for name in names], path, namespace)


def method(tree: Tree, path: str, owner: str, name: str, namespace: Namespace) -> Callable[..., Any]:
    """One method of a class, as a function."""
    body = definition(tree.module(path).body, owner, path).body
    function: Callable[..., Any] = _run([definition(body, name, path)], path, namespace)[name]
    return function


def definition(body: Iterable[ast.stmt], name: str, path: str) -> ast.FunctionDef | ast.ClassDef:
    """Raises PatchError where nothing of that name is defined."""
    for node in body:
        if isinstance(node, _DEFINITIONS) and node.name == name:
            return node
    raise PatchError(f"{path}: defines no {name}")


def assigned(node: ast.Assign | ast.AnnAssign) -> set[str]:
    """The plain names that a statement gives a value."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _run(body: list[Any], path: str, namespace: Namespace) -> Namespace:
    # Annotations stay text and asserts are dropped, so that only what has an effect needs a stand-in.
    flags = __future__.annotations.compiler_flag
    code = compile(ast.Module(body=body, type_ignores=[]), path, "exec", flags=flags, dont_inherit=True, optimize=1)
    # dataclasses looks the module of a class up in sys.modules.
    namespace["__name__"] = __name__
    exec(code, namespace)  # noqa: S102 - of the very files that the engine is about to run
    return namespace


def _importer(imports: Mapping[str, object]) -> Callable[..., object]:
    def load(
        name: str,
        globals_: Namespace | None = None,
        locals_: Namespace | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        top = name.partition(".")[0]
        if top not in imports:
            return __import__(name, globals_, locals_, fromlist, level)
        return imports[name if fromlist else top]

    return load


class Tensor:
    """A tensor of which only the identity, the shape and the dtype count."""

    device = "cuda"

    def __init__(self, *shape: int, dtype: str = "bfloat16") -> None:
        self.shape = shape
        self.dtype = dtype

    def size(self, dim: int) -> int:
        return self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def view(self, *_: object, **__: object) -> "Tensor":
        return self

    flatten = view

    def __getitem__(self, _: object) -> "Tensor":
        return self


class Calls:
    """Every attribute is a function that notes its name and arguments, and returns what `answers` has for it."""

    def __init__(self, **answers: object) -> None:
        self.seen: list[Call] = []
        self.answers = answers

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*args: object, **kwargs: object) -> object:
            self.seen.append((name, args, kwargs))
            return self.answers.get(name)

        return note


class Unset:
    """A configuration: what was not given is None."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def torch(kernels: Calls) -> SimpleNamespace:
    """`kernels` are the compiled ones, torch.ops._C."""
    names = ("bfloat16", "float8_e4m3fn", "float32", "int32", "int64")
    return SimpleNamespace(
        **{name: name for name in names},
        empty=lambda shape, **_: Tensor(*shape),
        ops=SimpleNamespace(_C=kernels),
        nn=SimpleNamespace(functional=SimpleNamespace()),
    )
