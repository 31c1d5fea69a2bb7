"""What the GPU tests are made of, as far as it needs no GPU."""

import importlib
import json
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from gpu import checkpoint, distributions, kernel_caches, report, routing
from gpu.cute_compiles import CuteCompiles
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


def test_a_missing_folder_is_put_back(tmp_path: Path) -> None:
    home = tmp_path / "start"
    (home / "vllm" / "modelinfos").mkdir(parents=True)
    (home / "vllm" / "modelinfos" / "kept").touch()
    for attempt in ("killed", "whole"):
        way = kernel_caches.without(home, "vllm/modelinfos")
        way.__enter__()
        assert not (home / "vllm" / "modelinfos").exists()
        (home / "vllm" / "modelinfos").mkdir()
        (home / "vllm" / "modelinfos" / attempt).touch()
        if attempt == "whole":
            way.__exit__(None, None, None)
    assert kernel_caches.files(home) == {Path("vllm/modelinfos/kept")}
    with kernel_caches.without(home, ""):
        assert kernel_caches.files(home) == {Path("vllm/modelinfos/kept")}


def test_centred_int4_have_no_minus_eight() -> None:
    """As eight to a word, lowest first, each with 8 added."""
    assert [distributions.centred(word) for word in (0x76543210, 0xFEDCBA98, 0x00000000, 0xF0F0F0F0)] == [
        0x76543218,
        0xFEDCBA98,
        0x88888888,
        0xF8F8F8F8,
    ]


def _routed(logit_spread: float, biases: Sequence[float], draw: random.Random) -> dict[str, float]:
    """512 tokens by vLLM's arithmetic: of each expert's sqrt(softplus(logit)) plus its bias the six largest."""
    counts = Counter[int]()
    for _ in range(512):
        scores = [math.sqrt(math.log1p(math.exp(draw.gauss(0, logit_spread)))) + bias for bias in biases]
        counts.update(sorted(range(len(biases)), key=scores.__getitem__)[-6:])
    return routing.spread([counts[expert] for expert in range(len(biases))], 512)


def test_written_weights_reach_every_expert_and_dummy_ones_a_few() -> None:
    """Where tokens have nothing in common, a logit's spread is the router's, times the root of 4096 inputs of about 1.

    vLLM's dummy weights are between -0.001 and 0.001, also those of the norm that the inputs go through.
    """
    draw, dummy = random.Random(1), 0.001 / math.sqrt(3)  # noqa: S311
    biases = [draw.gauss(0, distributions.WEIGHTS) for _ in range(256)]
    written = _routed(distributions.WEIGHTS * math.sqrt(4096), biases, draw)
    few = _routed(dummy * dummy * math.sqrt(4096), [draw.uniform(-0.001, 0.001) for _ in range(256)], draw)
    assert (written["used"], written["busiest"] < 0.06) == (256, True)
    assert (few["used"] < 16, few["busiest"]) == (True, 1.0)


def test_calls_of_cute_compile_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "cutlass" / "base_dsl"
    package.mkdir(parents=True)
    for directory in (package, package.parent):
        (directory / "__init__.py").touch()
    (package / "compiler.py").write_text("""\
class CompileCallable:
    def __init__(self, options=()):
        self.options = options

    def __getitem__(self, options):
        return CompileCallable(options)

    def __call__(self, function, *, fails=False):
        return 1 / (not fails), function, self.options
""")
    cute = CuteCompiles()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [cute, *sys.meta_path])
    compile_ = importlib.import_module("cutlass.base_dsl.compiler").CompileCallable()
    assert cute.so_far() == {"cute_calls": 0, "cute_s": 0.0}
    assert [compile_("a"), compile_["fast"]("b")] == [(1, "a", ()), (1, "b", "fast")]
    with pytest.raises(ZeroDivisionError):
        compile_("c", fails=True)
    assert (cute.calls, cute.seconds > 0) == (3, True)


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


STARTED = {"load_s": 12.0, "start_s": 20.5, "seconds": 1.25, "again_s": 0.1, "compiles": 0, "tokens": [1]}


def test_the_report_has_a_section_for_every_result_that_there_is() -> None:
    failed = {"error": "no answer within 500 s"}
    assert (
        report.report({"missing": {"": STARTED, "triton": {**STARTED, "start_s": 60.0}, "vllm/modelinfos": failed}})
        == """\
### One folder missing

One start after the other on the kept caches, each with one folder moved away, in seconds.

| missing | to ready | first answer |
| --- | --- | --- |
| none | 20 | 1.2 |
| `/cache/triton` | 60 | 1.2 |
| `/cache/vllm/modelinfos` | no answer within 500 s |  |"""
    )


def test_the_report_holds_imported_caches_against_the_first_start() -> None:
    cold = {**STARTED, "start_s": 100.0, "seconds": 8.75, "compiles": 7, "cute_calls": 5, "cute_s": 8.04}
    result = {
        "cold": cold,
        "imported": STARTED,
        "archive": {"files": 3, "bytes": 5_000_000, "packed_bytes": 1_000_000, "pack_s": 2.0, "unpack_s": 0.5},
        "written_again": ["flashinfer/flashinfer_jit.log"],
        "added": [],
    }
    assert (
        report.report({"imported": result})
        == """\
### Imported caches

| | |
| --- | --- |
| archive | 3 files, 5.0 MB, packed 1.0 MB |
| export, import | 2.0 s, 0.5 s |
| load, to ready, first answer, second answer | 12.0 s, 20.5 s, 1.2 s, 0.1 s |
| to the first answer | 21.8 s; on empty caches 108.8 s |
| imported : empty, to the first answer | 0.200 |
| kernels that TileLang says it compiles | 0; on empty caches 7 |
| `cute.compile`, to the first answer | not counted; on empty caches 5 in 8.0 s |
| files of the archive that were written again | `/cache/flashinfer/flashinfer_jit.log` |
| files that came to it | none |"""
    )


def _prefill(name: str, milliseconds: Iterable[float]) -> dict[str, object]:
    times = zip(report.LENGTHS, milliseconds, strict=True)
    measured = {length: {"median_ms": time, "min_ms": time - 1, "max_ms": time + 1} for length, time in times}
    routed = [{"used": 256, "busiest": 0.04}, {"used": 255, "busiest": 0.051}]
    firsts = {length: [3.0, 0.1] for length in report.LENGTHS}
    return {"name": name, "start": {"load_s": 20.0}, "firsts": firsts, "routing": routed, **measured}


def test_the_report_says_what_the_ladder_is_worth() -> None:
    rows = [
        _prefill("w4a8-16384", (20, 60, 110, 160)),
        {"name": "w4a16-16384", "error": "it ended"},
        _prefill("w4a8-16384-again", (21, 60, 110, 158.4)),
    ]
    drift = {"1024": 1.05, "8192": 1.0, "16384": 1.0, "24576": 0.99}
    assert (
        report.report({"ladder": {"rounds": 7, "rows": rows, "drift": drift}})
        == """\
## Prefill

`tests/gpu/test_ladder.py`: 8 layers, 256 experts, one TP2 rank's shapes, random weights, no hash routing; one engine
after the other. Median of 7 prompts (least to most), in ms; the number after the checkpoint's kind is
max_num_batched_tokens.

| engine | 1,024 tokens | 8,192 tokens | 16,384 tokens | 24,576 tokens |
| --- | --- | --- | --- | --- |
| w4a8-16384 | 20.0 (19.0 to 21.0) | 60.0 (59.0 to 61.0) | 110.0 (109.0 to 111.0) | 160.0 (159.0 to 161.0) |
| w4a8-16384-again | 21.0 (20.0 to 22.0) | 60.0 (59.0 to 61.0) | 110.0 (109.0 to 111.0) | 158.4 (157.4 to 159.4) |
| w4a8-16384-again : w4a8-16384 | 1.050 | 1.000 | 1.000 | 0.990 |
| w4a16-16384 | it ended |  |  |  |

Started again, the first engine took 0.990 to 1.050 of what it had taken: a smaller difference between the
others says nothing.

In every layer the tokens of a prompt went to 255 experts or more, and to none more than 5.1% of them.

The first prompt of a length compiles kernels; seconds to load and of each first prompt:

| engine | load | 1,024 tokens | 8,192 tokens | 16,384 tokens | 24,576 tokens |
| --- | --- | --- | --- | --- | --- |
| w4a8-16384 | 20.0 | 3.0 | 3.0 | 3.0 | 3.0 |
| w4a8-16384-again | 20.0 | 3.0 | 3.0 | 3.0 | 3.0 |"""
    )
