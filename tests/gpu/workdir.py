"""What the GPU tests share on disk: small checkpoints, kept caches, logs, results as JSON."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpu.engines import TESTS, Engine, EngineFailed

from dsv4_stack.guest.convert import convert
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.series import Patch

Record = Callable[[str, Any], None]
Results = dict[str, dict[str, Any]]

# What vLLM logs of the kernels that each kind is there for.
METHODS: Final[Mapping[str, frozenset[str]]] = {
    "w4a8": frozenset({"Using CompressedTensorsW4A8Fp8MoEMethod", "Using CUTLASS W4A8 MoE backend."}),
    "w4a16": frozenset({"Using CompressedTensorsWNA16MarlinMoEMethod", "Using 'MARLIN' WNA16 MoE backend."}),
}
# The engines of test_startup.py and test_serving.py, which share their caches.
HOME: Final = "caches/start"
PROMPT: Final = 300
ARGUMENTS: Final[Mapping[str, Any]] = {"max_model_len": 8192, "max_num_batched_tokens": 4096}


@dataclass(frozen=True, kw_only=True)
class Patched:
    """The installed vLLM; `patches` are those that its release needs."""

    tree: Path
    release: Release
    patches: tuple[Patch, ...]


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The same random weights, to be read as W4A16 and as W4A8."""

    w4a16: Path
    w4a8: Path


def shared_home(work: Path) -> Path:
    """With the caches that test_startup.py has kept, if it ran before."""
    return work / HOME if (work / HOME).exists() else work / "caches" / "serving"


def outcome(engine: Engine, *, tokens: int = 8) -> dict[str, Any]:
    """What an engine says of its start and of a prompt, or which error ended it, and what it chose. It ends here."""
    try:
        found = engine.ready(600)
        found |= engine.generate(PROMPT, tokens=tokens)
    except EngineFailed as failure:
        found = {"error": failure.error}
    engine.end()
    return {**found, "choices": engine.choices()}


def make_checkpoints(work: Path, name: str, *options: str) -> Checkpoints:
    """Made once; the W4A8 one has hard links to the other's weights, and the config.json that `dsv4 convert` makes."""
    directory = work / "checkpoints" / name
    found = Checkpoints(w4a16=directory / "w4a16", w4a8=directory / "w4a8")
    if not (found.w4a8 / "config.json").is_file():
        command = [sys.executable, "-m", "gpu.checkpoint", str(found.w4a16), *options]
        subprocess.run(command, check=True, cwd=TESTS, timeout=900)
        found.w4a8.mkdir(parents=True, exist_ok=True)
        for file in found.w4a16.glob("model*"):
            (found.w4a8 / file.name).hardlink_to(file)
        config = found.w4a16 / "config.json"
        (found.w4a8 / "config.json").write_bytes(convert(config.read_bytes(), str(config))[1])
    return found
