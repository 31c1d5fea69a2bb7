"""Images that several tests build on."""

import os
from collections.abc import Iterator

import pytest
from helpers.images import CPU_CONTEXTS, base_image, build_image, remove_image


@pytest.fixture(scope="session")
def base() -> str:
    """The pinned Python image or its stand-in, as scripts/base-images chose it."""
    return base_image()


@pytest.fixture(scope="session")
def init_image(base: str) -> Iterator[str]:
    tag = f"dsv4-test/init:{os.getpid()}"
    build_image("docker/init", tag=tag, args={"BASE_IMAGE": base}, contexts={"guest": "deploy/dsv4_stack"})
    yield tag
    remove_image(tag)


@pytest.fixture(scope="session")
def cpu_image(base: str) -> Iterator[str]:
    """vLLM's CPU build with everything that it needs: also where the real compressed-tensors and transformers are."""
    tag = f"dsv4-test/serve-cpu:{os.getpid()}"
    build_image("docker/serve-cpu", tag=tag, args={"BASE_IMAGE": base}, contexts=CPU_CONTEXTS)
    yield tag
    remove_image(tag)
