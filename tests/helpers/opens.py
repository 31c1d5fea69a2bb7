"""Which files this process opens."""

import builtins
import io
import os
from typing import Any

import pytest


def record_opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with the path of every file that is opened from now on; folders and handles do not count."""
    opened: list[str] = []

    def spy(module: Any) -> None:  # noqa: ANN401 - a module
        plain = module.open

        def recording(path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as open
            if not isinstance(path, int) and not os.path.isdir(path):  # noqa: PTH112 - Path would recurse
                opened.append(os.fspath(path))
            return plain(path, *args, **kwargs)

        monkeypatch.setattr(module, "open", recording)

    for module in (builtins, io, os):
        spy(module)
    return opened
