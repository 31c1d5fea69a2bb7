"""pytest-docker's own settings: the committed compose file of the demo, as `docker compose up` takes it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.images import base_image
from helpers.process import ROOT
from helpers.standin import serve_image


@pytest.fixture(scope="session")
def base() -> str:
    """The pinned Python image or its stand-in, as scripts/base-images chose it."""
    return base_image()


@pytest.fixture(scope="session")
def standin_serve(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """That of the engine v0.23.0."""
    with serve_image(base, "0.23.0", tmp_path_factory.mktemp("standin")) as tag:
        yield tag


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "compose/compose.demo.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return "dsv4-plain"


@pytest.fixture(scope="session")
def docker_setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Set the variables of the README's table, then one command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSV4_WEIGHTS_DIR", str(tmp_path_factory.mktemp("plain")))
        patch.setenv("DSV4_PORT", "8001")
        yield ["up --build --detach"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --timeout 40"]


@pytest.fixture(scope="session")
def weights(docker_setup: list[str]) -> Path:
    """The folder that `docker_setup` names."""
    assert docker_setup
    return Path(os.environ["DSV4_WEIGHTS_DIR"]) / "tiny-counter-long"
