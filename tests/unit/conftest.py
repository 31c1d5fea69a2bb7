"""Nothing of this machine's own stacks is read or written, and no disk is waited for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fsync is for happens to no test; a handle that is none is still an error."""
    monkeypatch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)


@pytest.fixture(autouse=True)
def _state_of_nobody(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state" / "of" / "nobody"))


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where projects are rendered to."""
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder
