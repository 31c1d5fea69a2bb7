"""The built wheel in a clean venv, outside the checkout: it renders, checks, and starts quickly."""

import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.process import ROOT, UV, run, succeed

from dsv4_stack import assets, lock, pins

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The venv's bin folder."""
    folder = tmp_path_factory.mktemp("installed")
    succeed(UV, "build", "--quiet", "--wheel", "--out-dir", folder, timeout=120)
    (wheel,) = folder.glob("*.whl")
    succeed(UV, "venv", "--quiet", folder / "venv", timeout=60)
    succeed(UV, "pip", "install", "--quiet", "--python", folder / "venv/bin/python", wheel, timeout=300)
    return folder / "venv/bin"


def test_its_rendered_files_are_as_rendered(installed: Path, tmp_path: Path) -> None:
    done = succeed(installed / "dsv4", "render", "--check", timeout=60, cwd=tmp_path)
    assert done.stderr == "render: 17 files are as rendered\n"


def test_it_renders_a_project_of_its_own(installed: Path, tmp_path: Path) -> None:
    succeed(installed / "dsv4", "render", "--profile", "w4a8-tp2", "--out", tmp_path / "mine", timeout=60, cwd=tmp_path)
    assert (tmp_path / "mine/compose/compose.yaml").read_bytes() == (ROOT / "compose/compose.yaml").read_bytes()
    assert (tmp_path / "mine/docker/serve/Dockerfile").read_bytes() == (ROOT / "docker/serve/Dockerfile").read_bytes()


def test_it_has_no_checkout_to_render_into(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "dsv4", "render", timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: an installed dsv4 has no checkout to render into\n  next: run: dsv4 render --out DIR\n",
    )


def test_the_checkout_is_not_on_its_path(installed: Path, tmp_path: Path) -> None:
    code = "import dsv4_stack; print(dsv4_stack.__file__)"
    done = succeed(installed / "python", "-c", code, timeout=60, cwd=tmp_path)
    assert str(ROOT) not in done.stdout


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A checkout whose wheel and overlay are locked, and its files rendered with that."""
    copy = tmp_path / "checkout"
    for name in succeed("git", "ls-files", timeout=60).stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    pinned = pins.load(assets.PINS)
    wheel, overlay = pinned.engines["nightly"].wheel, pinned.checkpoints["w4a8"].overlay
    assert wheel
    assert overlay
    known = lock.Lock(
        engines={"nightly": lock.LockedWheel(url=wheel.url, sha256="a" * 64, size=1, record="b" * 64)},
        repos={overlay.repo: lock.LockedRepo(requested=overlay.branch, revision="c" * 40, files={})},
    )
    (copy / assets.LOCK_NAME).write_text(known.text())
    succeed(
        sys.executable, "-m", "dsv4_stack", "render", timeout=60, cwd=copy, env={"PYTHONPATH": str(copy / "deploy")}
    )
    return copy


def test_it_knows_the_lock_that_its_files_were_rendered_with(locked: Path, tmp_path: Path) -> None:
    succeed(UV, "build", "--quiet", "--wheel", "--out-dir", tmp_path, locked, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command, environment = [sys.executable, "-m", "dsv4_stack"], {"PYTHONPATH": str(tmp_path / "site")}
    done = succeed(*command, "render", "--check", timeout=60, cwd=elsewhere, env=environment)
    assert done.stderr == "render: 17 files are as rendered\n"
    explained = succeed(*command, "plan", "--explain", timeout=60, cwd=elsewhere, env=environment).stdout
    assert f"engine.wheel.sha256 = {'a' * 64}    (dsv4.lock)\n" in explained
    # One that lies in the current folder is the user's own.
    (elsewhere / assets.LOCK_NAME).write_text(lock.Lock().text())
    assert run(*command, "render", "--check", timeout=60, cwd=elsewhere, env=environment).returncode == 1
