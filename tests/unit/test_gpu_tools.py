"""What the GPU tests are made of, as far as it needs no GPU."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
from gpu import checkpoint, kernel_caches, report
from gpu.engine import Overlay
from gpu.engines import Engine, EngineFailed, Setting
from gpu.left_out import publish
from helpers.vllm_tree import FILES, SERIES, write_tree

from dsv4_stack.guest import patches
from dsv4_stack.guest.patching import releases, series


@pytest.mark.parametrize("patch", series.load(SERIES), ids=lambda patch: patch.name)
def test_leaving_a_patch_out_gives_the_published_files(tmp_path: Path, patch: series.Patch) -> None:
    release = releases.parse("0.23.0")
    tree = write_tree(tmp_path / "tree")
    patches.apply(tree, series.load(SERIES), release)
    published = publish(tree, patch, release, tmp_path / "published")
    found = {str(file.relative_to(published)): file.read_text() for file in published.rglob("*.py")}
    assert found == {file.path: FILES[file.path] for file in patch.layout(release).files}


def test_an_overlay_answers_for_the_modules_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root, value in (("own", 1), ("overlay", 2)):
        (tmp_path / root / "overlaid").mkdir(parents=True)
        (tmp_path / root / "overlaid" / "there.py").write_text(f"VALUE = {value}\n")
    (tmp_path / "own" / "overlaid" / "__init__.py").touch()
    (tmp_path / "own" / "overlaid" / "elsewhere.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "own")
    monkeypatch.setattr(sys, "meta_path", [Overlay(tmp_path / "overlay"), *sys.meta_path])
    values = {name: importlib.import_module(f"overlaid.{name}").VALUE for name in ("there", "elsewhere")}
    assert values == {"there": 2, "elsewhere": 1}


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Here there is no vLLM; it ends as it does where vLLM raises."""
    with Engine(Setting(name="none", model=tmp_path, home=tmp_path), tmp_path) as engine:
        with pytest.raises(EngineFailed) as failure:
            engine.ready(60)
        assert failure.value.error.startswith("ModuleNotFoundError: No module named ")


def test_caches_are_counted_by_folder(tmp_path: Path) -> None:
    for at, (name, size) in enumerate([(".triton/a/b", 5), (".cache/vllm/deep_gemm/c", 7), (".triton/d", 1), ("e", 2)]):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
        os.utime(file, (0, 1000 + 10 * at))
    assert kernel_caches.folders(tmp_path, begun=990) == {
        ".": kernel_caches.Folder(files=1, bytes=2, waited_s=10),
        ".cache/vllm/deep_gemm": kernel_caches.Folder(files=1, bytes=7, waited_s=10),
        ".triton": kernel_caches.Folder(files=2, bytes=6, waited_s=20),
    }


def test_the_small_config_is_the_base_but_for_its_size() -> None:
    base = json.loads(checkpoint.BASE.read_bytes())
    small = checkpoint.config(layers=4, experts=16, rank_of_tp2=True)
    assert {key: value for key, value in small.items() if base[key] != value} == {
        "num_hidden_layers": 4,
        "num_hash_layers": 1,
        "n_routed_experts": 16,
        "vocab_size": 4096,
        "num_nextn_predict_layers": 0,
        "num_attention_heads": 32,
        "o_groups": 4,
        "moe_intermediate_size": 1024,
        "compress_ratios": [0, 4, 128, 4, 0],
        "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"],
        "layer_types": [
            "sliding_attention",
            "compressed_sparse_attention",
            "heavily_compressed_attention",
            "compressed_sparse_attention",
        ],
    }


def test_the_report_has_a_section_for_every_result_that_there_is() -> None:
    started = {"start_s": 20.5, "seconds": 1.25, "tokens": [1]}
    assert (
        report.report({"missing": {"": started, ".triton": {**started, "start_s": 60.0}}})
        == """\
### One folder missing

All at a time, each on a copy of the kept caches in another home directory, in seconds.

| missing | to ready | first answer |
| --- | --- | --- |
| none | 20 | 1.2 |
| `~/.triton` | 60 | 1.2 |"""
    )
