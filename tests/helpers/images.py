"""Building, looking at and removing images with the real engine."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from helpers.process import ROOT, run, succeed

CPU_CONTEXTS: Final = {
    "guest": "deploy/dsv4_stack",
    "serve": "docker/serve",
    "wheels": os.environ.get("DSV4_WHEELS", "docker/serve-cpu"),
}


def base_image() -> str:
    """What DSV4_INIT_BASE says (scripts/test sets it where nothing can be pulled), else the pinned image."""
    from dsv4_stack import assets, pins

    return os.environ.get("DSV4_INIT_BASE") or pins.load(assets.PINS).init_image


def build(
    directory: str,
    *,
    tag: str,
    dockerfile: str = "Dockerfile",
    args: Mapping[str, str] | None = None,
    contexts: Mapping[str, str] | None = None,
    network: str = "default",
) -> subprocess.CompletedProcess[str]:
    """`docker build` as Compose does it, with the machine's extra CA as a secret where there is one."""
    command = [
        "docker",
        "build",
        "--progress",
        "plain",
        "--network",
        network,
        "--tag",
        tag,
        "--file",
        f"{directory}/{dockerfile}",
    ]
    for name, value in (args or {}).items():
        command += ["--build-arg", f"{name}={value}"]
    for name, value in (contexts or {}).items():
        command += ["--build-context", f"{name}={value}"]
    command += ["--secret", f"id=extra_ca,src={os.environ.get('DSV4_EXTRA_CA', '/dev/null')}"]
    return run(*command, directory, timeout=1200)


def build_image(
    directory: str,
    *,
    tag: str,
    dockerfile: str = "Dockerfile",
    args: Mapping[str, str] | None = None,
    contexts: Mapping[str, str] | None = None,
    network: str = "default",
) -> subprocess.CompletedProcess[str]:
    """As `build`, and it succeeds."""
    done = build(directory, tag=tag, dockerfile=dockerfile, args=args, contexts=contexts, network=network)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def pinned_or_built(name: str, base: str) -> Iterator[str]:
    """The pinned image where it can be pulled; else the same program on the base that there is."""
    if pulled := pulled_image(name):
        yield pulled
        return
    tag = f"dsv4-test/{name}:{os.getpid()}"
    build_image("tests/standin", tag=tag, dockerfile=f"{name}.Dockerfile", args={"BASE_IMAGE": base})
    yield tag
    remove_image(tag)


def pulled_image(name: str) -> str:
    """A pinned image that is here now, or nothing where it cannot be pulled."""
    from dsv4_stack import assets, pins

    pinned = pins.load(assets.PINS).beside[name]
    # Where bases were made here, no registry is in reach.
    if os.environ.get("DSV4_INIT_BASE"):
        return ""
    return pinned if run("docker", "pull", "--quiet", pinned, timeout=300).returncode == 0 else ""


def remove_image(tag: str) -> None:
    run("docker", "image", "rm", "--force", tag, timeout=60)


def inspect(tag: str) -> dict[str, Any]:
    return dict(json.loads(succeed("docker", "image", "inspect", tag, timeout=30).stdout)[0])


def run_container(*words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`docker run --rm`, output captured."""
    return run("docker", "run", "--rm", *words, timeout=timeout, cwd=ROOT)
