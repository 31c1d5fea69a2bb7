"""One commit's wheel over a base: torch held fast, nothing broken, the hash checked or recorded."""

import functools
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.images import build_image, remove_image, run_container
from helpers.process import ROOT
from helpers.wheels_made import make_wheel, sha256_of

pytestmark = pytest.mark.docker

STANDIN = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN python3 -m venv /opt/base
ENV PATH=/opt/base/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
COPY wheels /wheels
RUN pip install --quiet torch==2.11.0 vllm==0.25.1 companion==1.0 flashinfer-jit-cache==0.6.13 && \\
    pip install --quiet --no-deps broken==1.0
"""
VERSION = "0.23.1rc1.dev901+g2f3f441f8"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The test's own output is enough."""


@pytest.fixture(scope="module")
def standin(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base with a vLLM, a torch, a package that the wheel may break and one that is broken already."""
    context, tag = tmp_path_factory.mktemp("base"), f"dsv4-test/wheel-base:{os.getpid()}"
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
    (context / "Dockerfile").write_text(STANDIN)
    build_image(str(context), tag=tag, args={"BASE_IMAGE": base})
    yield tag
    remove_image(tag)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of `tmp_path` on loopback."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def install(standin: str, url: str, sha256: str = "") -> subprocess.CompletedProcess[str]:
    script = f"{ROOT}/docker/serve/install-wheel.sh:/install-wheel.sh:ro"
    command = f"sh /install-wheel.sh '{url}' '{sha256}' && echo ---- && cat /opt/dsv4/build.json"
    return run_container("--network", "host", "--volume", script, "--entrypoint", "sh", standin, "-c", command)


def url_of(served: str, wheel: Path) -> str:
    return f"{served}/{wheel.name.replace('+', '%2B')}"


def test_an_unlocked_wheel_is_installed_and_its_hash_recorded(standin: str, served: str, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0", "shared"))
    done = install(standin, url_of(served, wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.partition("----\n")[2]) == {
        "wheel": {
            "url": url_of(served, wheel),
            "sha256": sha256_of(wheel),
            "size": wheel.stat().st_size,
            "locked": False,
        },
        "vllm": VERSION,
        "torch": "2.11.0",
    }


def test_a_locked_wheel_has_to_have_its_hash(standin: str, served: str, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0",))
    assert install(standin, url_of(served, wheel), sha256_of(wheel)).returncode == 0
    done = install(standin, url_of(served, wheel), "0" * 64)
    assert (done.returncode, done.stderr) == (
        6,
        (
            f"error: {url_of(served, wheel)} has sha256 {sha256_of(wheel)}, the lock says {'0' * 64}\n"
            "  next: run: dsv4 lock --check\n"
        ),
    )


def test_a_wheel_that_is_gone(standin: str, served: str) -> None:
    done = install(standin, f"{served}/vllm-gone.whl")
    assert (done.returncode, done.stderr) == (
        4,
        f"error: {served}/vllm-gone.whl answered 404\n  next: check the engine's wheel in pins.toml\n",
    )


def test_a_wheel_that_wants_another_torch_is_refused(standin: str, served: str, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.12.0",))
    done = install(standin, url_of(served, wheel))
    assert done.returncode != 0
    assert "torch==2.11.0" in done.stdout + done.stderr


def test_a_wheel_that_breaks_another_package_is_refused(standin: str, served: str, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0", "shared>=2"))
    done = install(standin, url_of(served, wheel))
    assert done.returncode == 3
    assert "companion 1.0 has requirement shared<2, but you have shared 2.0" in done.stdout
    assert done.stderr.endswith(
        "error: the wheel breaks the requirements above\n  next: choose a base image nearer to the wheel's commit\n"
    )


@pytest.mark.parametrize(("wanted", "stays"), [("0.6.12", False), ("0.6.13", True)])
def test_flashinfers_cache_stays_only_with_its_own_version(
    standin: str, served: str, tmp_path: Path, wanted: str, *, stays: bool
) -> None:
    wheel = make_wheel(tmp_path, "vllm", VERSION, ("torch==2.11.0", f"flashinfer-python=={wanted}"))
    done = install(standin, url_of(served, wheel))
    assert done.returncode == 0, done.stdout + done.stderr
    message = "flashinfer-jit-cache 0.6.13 does not go with flashinfer-python 0.6.12: removed"
    assert (message not in done.stdout) == stays
