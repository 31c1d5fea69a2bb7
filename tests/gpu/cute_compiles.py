"""What CuTe DSL compiles in this process. `cute.compile` asks no cache and fills none: every process compiles anew."""

import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

# `cute.compile` and `cute.compile[options]` are objects of its class CompileCallable.
_COMPILER: Final = "cutlass.base_dsl.compiler"
_Compile = Callable[..., Any]


class CuteCompiles(MetaPathFinder):
    """Put first on `sys.meta_path`, it counts the calls from when somebody imports the package."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0

    def so_far(self) -> dict[str, float]:
        return {"cute_calls": self.calls, "cute_s": self.seconds}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _COMPILER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            # The loader is this spec's own.
            vars(spec.loader)["exec_module"] = partial(self._execute, spec.loader.exec_module)
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        compiler = getattr(module, "CompileCallable", None)
        if compiler is not None:
            compiler.__call__ = self._timed(compiler.__call__)

    def _timed(self, compile_: _Compile) -> _Compile:
        @wraps(compile_)
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            begin = time.monotonic()
            try:
                return compile_(*args, **kwargs)
            finally:
                self.calls += 1
                self.seconds += time.monotonic() - begin

        return timed
