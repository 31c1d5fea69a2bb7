"""The init image: small, complete, and the same code as on the host."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.images import build_image, inspect, remove_image, run_container
from helpers.process import ROOT

pytestmark = pytest.mark.docker


def test_it_adds_little_to_its_base(init_image: str, base: str) -> None:
    added = inspect(init_image)["Size"] - inspect(base)["Size"]
    assert added < 120_000_000


def test_it_holds_what_uv_lock_says_and_no_installer(init_image: str) -> None:
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    done = run_container("--entrypoint", "python3", init_image, "-c", code)
    installed = json.loads(done.stdout)
    assert installed["huggingface-hub"] if "huggingface-hub" in installed else installed["huggingface_hub"]
    assert "requests" in installed
    assert "pip" not in installed


def test_its_entrypoint_has_the_verbs_of_the_containers(init_image: str) -> None:
    done = run_container(init_image, "--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line[2] != "-"] == [
        "materialize",
        "gate",
        "patches",
        "own",
        "ready",
        "serve",
        "warm",
        "caches",
        "ask",
        "figures",
        "health",
        "key-desk",
        "demo-hub",
    ]


def test_exit_codes_are_the_hosts(init_image: str) -> None:
    done = run_container(init_image, "gate", "/nowhere")
    assert done.returncode == 4
    assert done.stderr == "error: there is no folder /nowhere\n  next: run: dsv4 materialize\n"


def test_labels_name_base_and_context(init_image: str) -> None:
    labels = inspect(init_image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")
    assert len(labels["io.dsv4.context"]) == 64


def test_any_user_may_run_it_also_from_a_checkout_that_only_its_owner_may_read(base: str, tmp_path: Path) -> None:
    guest, tag = tmp_path / "dsv4_stack", f"dsv4-test/init-closed:{os.getpid()}"
    shutil.copytree(ROOT / "deploy/dsv4_stack", guest, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [guest, *guest.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    try:
        build_image("docker/init", tag=tag, args={"BASE_IMAGE": base}, contexts={"guest": str(guest)})
        done = run_container("--user", "10001:10001", tag, "gate", "/nowhere")
    finally:
        remove_image(tag)
    assert (done.returncode, done.stderr) == (4, "error: there is no folder /nowhere\n  next: run: dsv4 materialize\n")
