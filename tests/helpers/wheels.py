"""Real vLLM, as pins.toml has its releases: the Python files of their wheels, kept between runs."""

import functools
import os
from pathlib import Path

from dsv4_stack import assets, pins, wheels

RELEASES = pins.load(assets.PINS).releases
CACHE = Path(os.environ.get("DSV4_TEST_CACHE") or Path.home() / ".cache" / "dsv4-tests")


@functools.cache
def tree(name: str) -> Path:
    """The directory that holds the release's `vllm/`; for reading."""
    os.environ["DSV4_CACHE"] = str(CACHE)
    return wheels.tree(RELEASES[name].wheel, lambda _: None)
