"""Does the checkpoint's config load? vLLM's own loader of every release, real torch, each Transformers that it allows.

Real are: vLLM's Python package of each release, as it is or with our patched file; Transformers, huggingface-hub and
tokenizers; torch and all other packages, which are those of the CPU engine's image. vLLM's compiled parts are missing,
and no config needs them.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.images import run_container
from helpers.process import ROOT, UV
from helpers.vllm_tree import SERIES
from helpers.wheels import RELEASES, tree

from dsv4_stack.guest.patching import diff, series

pytestmark = [pytest.mark.docker, pytest.mark.network]

# Transformers -> the releases that allow it: around each change of its allow-lists, and the newest that each release
# allows as of 2026-11-23.
ALLOWED = {
    "5.8.1": ["0.23.0", "0.24.0", "0.25.1", "0.26.0", "0.28.0"],
    "5.12.1": ["0.23.0", "0.24.0", "0.25.1", "0.26.0", "0.28.0", "0.30.0"],
    "5.15.1": ["0.23.0", "0.24.0", "0.25.1", "0.26.0", "0.28.0", "0.30.0"],
    "5.23.0": ["0.23.0", "0.24.0", "0.25.1", "0.26.0", "0.28.0", "0.30.0"],
    "5.19.0": ["0.32.0+cpu"],
    "5.20.2": ["0.33.0"],
}
OWN = "vllm.transformers_utils.configs.deepseek_v4"
THEIRS = "transformers.models.deepseek_v4.configuration_deepseek_v4"
# What the validator of this Transformers holds `mlp_layer_types` against; 5.8.1 looks at them nowhere.
REFUSED_BY = {
    "5.8.1": None,
    "5.12.1": "'full_attention', 'sliding_attention', ",
    "5.15.1": "'sparse', 'dense')",
    "5.23.0": "'sparse', 'dense')",
    "5.19.0": "'sparse', 'dense')",
}

# Loads the config with each vLLM given, in processes of their own that have torch and Transformers already; once as it
# is, and once with the patched module in the package's path.
LOAD = """
import json, os, sys
sys.path.insert(0, "/transformers")
import torch, transformers

def in_a_process_of_its_own(work, *args):
    if os.fork():
        os.wait()
    else:
        work(*args)
        os._exit(0)

def release(name, wheel):
    sys.path.insert(0, f"/wheels/{wheel}")
    import vllm.transformers_utils.repo_utils as repo_utils
    from vllm.transformers_utils import config, configs
    assert config.__file__.startswith(f"/wheels/{wheel}/vllm/"), config.__file__
    repo_utils.time.sleep = lambda _: None  # it tries again what cannot succeed
    for variant in ("plain", "patched"):
        in_a_process_of_its_own(load, name, variant, config, configs)

def load(name, variant, config, configs):
    configs.__path__[:0] = [f"/patched/{name}"] * (variant == "patched")
    try:
        found = config.get_config("/model", trust_remote_code=False)
        module = sys.modules[type(found).__module__]
        answer = [module.__name__, module.__file__.split("/")[1], sorted(set(found.mlp_layer_types))]
    except Exception as error:
        answer = [type(error).__name__, str(error)]
    print("\\nANSWER", json.dumps([f"{name}/{variant}", transformers.__version__, answer]), flush=True)

for argument in sys.argv[1:]:
    in_a_process_of_its_own(release, *argument.split("="))
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one module that the patch changes, of every release that needs it."""
    root = tmp_path_factory.mktemp("patched")
    (patch,) = series.load(SERIES, ["0003-hash-moe-layer-type"])
    for name, facts in RELEASES.items():
        (root / name).mkdir()
        if facts.release in patch.span:
            (file,) = patch.layout(facts.release).files
            data = diff.apply((tree(name) / file.path).read_bytes(), file).data
            (root / name / Path(file.path).name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def shared(patched: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """What every container sees; what one of them compiled, the next one need not."""
    return {patched: "/patched:ro", tmp_path_factory.mktemp("bytecode"): "/bytecode"}


@pytest.fixture(scope="module")
def python(cpu_image: str) -> str:
    """The image's Python, as in "3.12"."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return run_container("--entrypoint", "python3", cpu_image, "-c", code).stdout.strip()


def install(version: str, python: str, folder: Path) -> Path:
    """Transformers with what it needs; and gguf, which vLLM's loader imports before 0.24."""
    command = [UV, "pip", "install", "--quiet", "--target", folder, "--python-version", python]
    subprocess.run([*command, f"transformers=={version}", "gguf"], check=True, capture_output=True)
    return folder


def load(image: str, transformers: Path, mounts: dict[Path, str]) -> dict[str, list[object]]:
    """What each vLLM makes of the config, by release and variant."""
    releases = ALLOWED[transformers.name]
    mounts = {transformers: "/transformers:ro", tree(releases[0]).parent: "/wheels:ro", **mounts}
    volumes = [word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}")]
    environment = [
        "--env",
        "HF_HUB_OFFLINE=1",
        "--env",
        "PYTHONPYCACHEPREFIX=/bytecode",
        "--env",
        "PYTHONWARNINGS=ignore",
    ]
    arguments = [f"{name}={tree(name).name}" for name in releases]
    done = run_container(*volumes, *environment, "--entrypoint", "python3", image, "-c", LOAD, *arguments, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    answers = [json.loads(line.removeprefix("ANSWER ")) for line in lines]
    expected = [(f"{name}/{variant}", transformers.name) for name in releases for variant in ("plain", "patched")]
    assert [(name, version) for name, version, _ in answers] == expected, done.stdout + done.stderr
    return {name: answer for name, _, answer in answers}


@pytest.mark.parametrize("version", ALLOWED)
def test_the_config_loads_where_it_should_and_fails_where_the_patch_says(
    version: str, cpu_image: str, python: str, shared: dict[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    shutil.copyfile(ROOT / "tests/data/config_base.json", tmp_path / "model/config.json")
    mounts = {**shared, tmp_path / "model": "/model:ro"}
    found = load(cpu_image, install(version, python, tmp_path / version), mounts)
    loaded = ["hash_moe", "moe"]
    for release in ALLOWED[version]:
        plain, ours = found[f"{release}/plain"], found[f"{release}/patched"]
        if release == "0.33.0":
            assert plain == ours == [THEIRS, "transformers", loaded]
            continue
        assert ours == [OWN, "patched", loaded]
        if REFUSED_BY[version] is None:
            assert plain == [OWN, "wheels", loaded]
        else:
            error, message = map(str, plain)
            assert error == "StrictDataclassClassValidationError"
            assert f"ValueError: The `mlp_layer_types` entries must be in ({REFUSED_BY[version]}" in message
            assert "but got ['hash_moe', " in message
