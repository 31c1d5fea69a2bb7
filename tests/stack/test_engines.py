"""Every later engine's image, built on the Python files of its real wheel: it proves its effects, and serves."""

from pathlib import Path

import pytest
from helpers.process import succeed
from helpers.stacks import stack
from helpers.standin import EFFECTS, serve_image

from dsv4_stack import assets, pins

pytestmark = [pytest.mark.docker, pytest.mark.network]

# v0.23.0's serves in the other tests.
LATER = [
    engine.releases[0]
    for engine in pins.load(assets.PINS).engines.values()
    if engine.image == "serve" and not engine.wheel and engine.name != "v0.23.0"
]


@pytest.mark.parametrize("release", LATER)
def test_it_serves(release: str, base: str, tmp_path: Path) -> None:
    with (
        serve_image(base, release, tmp_path / "context") as image,
        stack("dsv4-engines-test", image, tmp_path / "stack") as running,
    ):
        running.compose("build", "materialize", timeout=600)
        running.up()
        running.wait_for("ready")
        assert running.complete() == "ghij"
        proved = succeed("docker", "exec", running.container(), "sh", "-c", EFFECTS, timeout=60).stdout
        assert proved.count(" in effect\n") == 5
