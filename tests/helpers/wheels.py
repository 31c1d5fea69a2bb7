"""Real vLLM, as pins.toml has its releases: the Python files of their wheels, kept between runs."""

import functools
import os
from contextlib import suppress
from pathlib import Path

from dsv4_stack import assets, pins, wheels
from dsv4_stack.errors import NetworkError

RELEASES = pins.load(assets.PINS).releases
CACHE = Path(os.environ.get("DSV4_TEST_CACHE") or Path.home() / ".cache" / "dsv4-tests")
# One of many requests may fail, and nobody else tries it again.
TRIES = 3


@functools.cache
def tree(name: str) -> Path:
    """The directory that holds the release's `vllm/`; for reading."""
    os.environ["DSV4_CACHE"] = str(CACHE)
    for _ in range(TRIES - 1):
        with suppress(NetworkError):
            return wheels.tree(RELEASES[name].wheel, lambda _: None)
    return wheels.tree(RELEASES[name].wheel, lambda _: None)
