"""The built wheel in a clean venv, outside the checkout: it renders, checks, and starts quickly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.process import ROOT, UV, run, succeed

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
