"""One commit's wheel over a base: torch held fast, nothing broken, the hash checked or recorded."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import file_server
from helpers.images import build_image, remove_image, run_container
from helpers.installers import write_dockerfile
from helpers.process import ROOT
from helpers.wheels_made import make_wheel, sha256_of

pytestmark = pytest.mark.docker

CONFLICT = {
    "pip": "companion 1.0 has requirement shared<2, but you have shared 2.0",
    "uv": "The package `companion` requires `shared<2`, but `2.0` is installed",
}
VERSION = "0.23.1rc1.dev901+g2f3f441f8"


@pytest.fixture(scope="module", params=["pip", "uv"])
def installer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def standin(installer: str, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base with a vLLM, a torch, a package that the wheel may break and one that is broken already."""
    context, tag = tmp_path_factory.mktemp("base"), f"dsv4-test/wheel-base-{installer}:{os.getpid()}"
    wheels = context / "wheels"
    for name, version, requires in (
        ("torch", "2.11.0", ()),
        ("torch", "2.12.0", ()),
        ("shared", "1.0", ()),
        ("shared", "2.0", ()),
        ("vllm", "0.25.1", ("torch==2.11.0", "shared", "flashinfer-python==0.6.13")),
        ("companion", "1.0", ("shared<2",)),
        ("broken", "1.0", ("nowhere",)),
        ("flashinfer-python", "0.6.12", ()),
        ("flashinfer-python", "0.6.13", ()),
        ("flashinfer-jit-cache", "0.6.13", ()),
    ):
        make_wheel(wheels, name, version, requires)
    installed = "torch==2.11.0 vllm==0.25.1 companion==1.0 flashinfer-jit-cache==0.6.13"
    write_dockerfile(context, installer, installed, "--no-deps broken==1.0")
    build_image(str(context), tag=tag, args={"BASE_IMAGE": base})
    yield tag
    remove_image(tag)


@pytest.fixture
def served() -> Iterator[file_server.Site]:
    with file_server.serving() as site:
        yield site


def install(standin: str, url: str, sha256: str = "", *, version: str = VERSION) -> subprocess.CompletedProcess[str]:
    script = f"{ROOT}/docker/serve/install-wheel.sh:/install-wheel.sh:ro"
    command = f"sh /install-wheel.sh '{url}' '{version}' '{sha256}' && echo ---- && cat /opt/dsv4/build.json"
    return run_container("--network", "host", "--volume", script, "--entrypoint", "sh", standin, "-c", command)


def test_an_unlocked_wheel_is_installed_and_its_hash_recorded(
    standin: str, served: file_server.Site, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0", "shared"))
    done = install(standin, served.put(wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.partition("----\n")[2]) == {
        "wheel": {
            "url": served.put(wheel),
            "sha256": sha256_of(wheel),
            "size": wheel.stat().st_size,
            "locked": False,
        },
        "vllm": VERSION,
        "torch": "2.11.0",
    }


def test_a_locked_wheel_has_to_have_its_hash(standin: str, served: file_server.Site, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0",))
    assert install(standin, served.put(wheel), sha256_of(wheel)).returncode == 0
    done = install(standin, served.put(wheel), "0" * 64)
    assert (done.returncode, done.stderr) == (
        6,
        (
            f"error: {served.put(wheel)} has sha256 {sha256_of(wheel)}, the lock says {'0' * 64}\n"
            "  next: run: dsv4 lock --check\n"
        ),
    )


def test_a_wheel_that_is_gone(standin: str, served: file_server.Site) -> None:
    done = install(standin, f"{served.url}/vllm-gone.whl")
    assert (done.returncode, done.stderr) == (
        4,
        f"error: {served.url}/vllm-gone.whl answered 404\n  next: check the engine's wheel in pins.toml\n",
    )


def test_a_wheel_that_wants_another_torch_is_refused(standin: str, served: file_server.Site, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.12.0",))
    done = install(standin, served.put(wheel))
    assert done.returncode == 3
    assert done.stderr.endswith(
        "error: the wheel cannot be installed beside torch 2.11.0\n"
        "  next: choose a base image with the torch that the wheel wants\n"
    )


def test_a_wheel_of_another_version_is_refused(standin: str, served: file_server.Site, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", "0.23.1", ("torch==2.11.0",))
    done = install(standin, served.put(wheel))
    assert done.returncode == 3
    assert done.stderr.endswith(
        f"error: vLLM is 0.23.1 now, not {VERSION}\n  next: check the engine's version and wheel in pins.toml\n"
    )


def test_a_wheel_that_breaks_another_package_is_refused(
    standin: str, installer: str, served: file_server.Site, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0", "shared>=2"))
    done = install(standin, served.put(wheel))
    assert done.returncode == 3
    assert CONFLICT[installer] in done.stdout
    assert done.stderr.endswith(
        "error: the wheel breaks the requirements above\n  next: choose a base image nearer to the wheel's commit\n"
    )


@pytest.mark.parametrize(("wanted", "stays"), [("0.6.12", False), ("0.6.13", True)])
def test_flashinfers_cache_stays_only_with_its_own_version(
    standin: str, served: file_server.Site, tmp_path: Path, wanted: str, *, stays: bool
) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0", f"flashinfer-python=={wanted}"))
    done = install(standin, served.put(wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    message = "flashinfer-jit-cache 0.6.13 does not go with flashinfer-python 0.6.12: removed"
    assert (message not in done.stdout) == stays
