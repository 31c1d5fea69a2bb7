"""The README's commands, run as they stand there, with a folder for each placeholder and a Hub that nobody reaches.

What a machine without GPUs or network cannot do, it refuses with a reason, and that is looked at. The ones that need a
running stack run in test_demo.py, those that need a Hub and a wheel server in test_resolve.py.
"""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from helpers.process import ROOT, run
from helpers.wheels import CACHE

pytestmark = [pytest.mark.docker, pytest.mark.network]

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOES_NOT_FIT = "error: this machine does not fit the profile:\n"

MATERIALIZE = (
    "dsv4 materialize --base canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP@0bbee82146562d9b7e4687483d348c760e61ef3b "
    "--config convert --dest DIR"
)
# Command -> exit code and how its output (stdout, or stderr where it fails) begins. These touch no GPU, and of the
# network PyPI alone.
ALONE = {
    "dsv4 profiles": (0, "w4a8-tp2 "),
    "dsv4 plan --explain": (0, "profile: w4a8-tp2\n"),
    "dsv4 patches list": (0, "0001-packed-modules-mapping: "),
    "dsv4 patches check --engine v0.33.0": (0, "0.33.0: 0001-packed-modules-mapping already upstream since 0.29.0\n"),
    "dsv4 patches check --release all": (0, "0.22.1: 0001-packed-modules-mapping applies (offset +168)\n"),
    "dsv4 patches diff --engine v0.23.0": (0, "--- a/vllm/models/deepseek_v4/nvidia/model.py\n"),
    "dsv4 engines": (0, "nightly, the default: "),
    "dsv4 convert IN/config.json OUT/config.json": (0, "convert: wrote OUT/config.json (w4a8)\n"),
    MATERIALIZE: (8, "error: canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP@0bbee82"),
    "dsv4 gate DIR --deep": (4, "error: DIR has no manifest"),
    "dsv4 render --check": (0, ""),
    "dsv4 render --profile P --out DIR": (3, "error: there is no profile 'P'\n"),
    "dsv4 doctor": (10, DOES_NOT_FIT),
    "dsv4 up --profile w4a8-tp4": (10, DOES_NOT_FIT),
    "dsv4 up --edge": (10, DOES_NOT_FIT),
    "dsv4 up --monitoring": (10, DOES_NOT_FIT),
    "dsv4 up --engine v0.23.0": (10, DOES_NOT_FIT),
    "dsv4 up --profile mine.toml": (10, DOES_NOT_FIT),
}
# Command -> the file that runs it, and how it does.
ELSEWHERE = {
    "scripts/demo": ("tests/stack/test_demo.py", 'succeed("scripts/demo", timeout'),
    "scripts/demo --down": ("tests/stack/test_demo.py", 'succeed("scripts/demo", "--down"'),
    "scripts/test": (".ci/run", "exec scripts/test"),
    "dsv4 up": ("scripts/demo", "$dsv4 up"),
    "scripts/setup": ("scripts/test", "scripts/setup"),
    "dsv4 status": ("tests/stack/test_demo.py", 'demo.dsv4("status"'),
    "dsv4 status --watch": ("tests/stack/test_monitoring.py", '"status", "--watch", "1"'),
    "dsv4 verify": ("tests/stack/test_demo.py", 'demo.dsv4("verify"'),
    "dsv4 logs --follow serve": ("tests/stack/test_demo.py", '"logs", "--follow", "serve"'),
    "dsv4 down": ("scripts/demo", "$dsv4 down"),
    "docker compose up": ("tests/stack/conftest.py", '"up --build --detach"'),
    "docker compose restart": ("tests/stack/test_demo.py", '"docker", "compose", "-p", PROJECT, "restart"'),
    "dsv4 keys add alice": ("tests/stack/test_edge.py", 'verb("add", "alice")'),
    "dsv4 keys list": ("tests/stack/test_edge.py", 'verb("list")'),
    "dsv4 keys revoke alice": ("tests/stack/test_edge.py", 'verb("revoke", "alice")'),
    "docker compose -f compose.yaml -f edge.yaml up": ("tests/stack/test_edge.py", "running.up()"),
    "docker compose -f compose.yaml -f monitoring.yaml up": (
        "tests/helpers/monitoring.py",
        'running.up("serve", "prometheus"',
    ),
    "dsv4 warm": ("tests/stack/test_demo.py", 'demo.dsv4("warm"'),
    "dsv4 warm --export kernels.tar.gz": ("tests/stack/test_warm.py", 'dsv4("warm", "--export"'),
    "dsv4 warm --import kernels.tar.gz": ("tests/stack/test_warm.py", 'dsv4("warm", "--import"'),
    "dsv4 lock": ("tests/unit/test_resolve.py", 'cli.main(["lock"])'),
    "dsv4 lock --check": ("tests/unit/test_resolve.py", 'cli.main(["lock", "--check"])'),
    "dsv4 render": ("tests/wheel/test_installed.py", '"dsv4", "render", timeout'),
}


def commands() -> set[str]:
    """Every command line of the README's blocks and tables."""
    joined = README.replace("\\\n", " ")
    blocks = {line.strip() for line in joined.splitlines() if line.startswith("    ")}
    inline = set(re.findall(r"`((?:dsv4|scripts/|docker compose) ?[a-z][^`]*)`", joined))
    known = ("dsv4 ", ".venv/bin/dsv4 ", "scripts/", "docker compose ")
    return {command for command in blocks | inline if command.startswith(known)}


def test_every_command_of_the_readme_is_run_somewhere() -> None:
    missing = {command for command in commands() if command not in ALONE and command not in ELSEWHERE}
    assert sorted(missing) == []
    for command, (path, call) in ELSEWHERE.items():
        assert call in (ROOT / path).read_text(encoding="utf-8"), f"{path} does not run {command}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IN, OUT and DIR: the real config, and empty folders; and a profile of one's own."""
    root = tmp_path_factory.mktemp("readme")
    for name in ("IN", "OUT", "DIR"):
        (root / name).mkdir()
    shutil.copyfile(ROOT / "tests/data/config_base.json", root / "IN/config.json")
    (root / "mine.toml").write_text('extends = "w4a8-tp2"\n')
    return root


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="with GPUs these would start a download of 159 GiB")
@pytest.mark.parametrize("command", sorted(ALONE))
def test_the_command_does_what_it_says(command: str, folders: Path) -> None:
    code, start = ALONE[command]
    program, *words = shlex.split(command)
    environment = {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment |= {"HF_HUB_OFFLINE": "1", "DSV4_CACHE": str(CACHE)}
    done = run(ROOT / program if "/" in program else "dsv4", *words, timeout=120, env=environment, cwd=folders)
    # What doctor warns of may stand before the error.
    output = "error: " + done.stderr.partition("error: ")[2] if code else done.stdout
    assert (done.returncode, output[: len(start)]) == (code, start), done.stdout + done.stderr
