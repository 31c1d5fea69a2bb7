"""Applying, rehearsing and proving a series on a tree, and the verb that does it inside the containers."""

import argparse
import json
import os
import sys
from pathlib import Path

import pytest
from helpers.vllm_tree import SERIES, bytes_of, write_tree

from dsv4_stack.errors import ConfigError, NotFoundError, PatchError
from dsv4_stack.guest import patches
from dsv4_stack.guest.patches import Result, State
from dsv4_stack.guest.patching import series
from dsv4_stack.guest.patching.clamp_effect import EXPERTS
from dsv4_stack.guest.patching.layer_type_effect import CONFIG
from dsv4_stack.guest.patching.mapping_effect import MODEL, MTP
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.scale_effect import O_PROJ

NAMES = [patch.name for patch in series.load(SERIES)]
RELEASE = Release(0, 23, 0)
PATCHED = {MODEL, MTP, CONFIG, O_PROJ, EXPERTS}
# Where the small tree has the lines, against where the real files have them.
OFFSETS = [(-1243,), (-251,), (-16,), (-51,), (-1121, -1179, -1372)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "site-packages")


def results(state: State, offsets: list[tuple[int, ...]] | None = None) -> list[Result]:
    pairs = zip(NAMES, offsets or [()] * len(NAMES), strict=True)
    return [Result(patch=name, state=state, offsets=places) for name, places in pairs]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def test_check_touches_nothing(tree: Path) -> None:
    before, stats = bytes_of(tree), {path: path.stat() for path in tree.rglob("*")}
    assert patches.check(tree, series.load(SERIES), RELEASE) == results(State.APPLIES, OFFSETS)
    assert bytes_of(tree) == before
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == {
        path: stat.st_mtime_ns for path, stat in stats.items()
    }


def test_apply_changes_the_named_files_alone(tree: Path) -> None:
    (tree / EXPERTS).chmod(0o640)
    before = bytes_of(tree)
    assert patches.apply(tree, series.load(SERIES), RELEASE) == results(State.APPLIED, OFFSETS)
    after = bytes_of(tree)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} == PATCHED
    assert (tree / EXPERTS).stat().st_mode & 0o777 == 0o640
    assert patches.in_effect(tree, series.load(SERIES)) == results(State.IN_EFFECT)


def test_a_second_apply_writes_nothing(tree: Path) -> None:
    patches.apply(tree, series.load(SERIES), RELEASE)
    inodes = {path: path.stat().st_ino for path in tree.rglob("*")}
    assert patches.apply(tree, series.load(SERIES), RELEASE) == results(State.IN_EFFECT)
    assert {path: path.stat().st_ino for path in tree.rglob("*")} == inodes


def test_bytecode_of_patched_files_is_purged(tree: Path) -> None:
    cache = (tree / EXPERTS).parent / "__pycache__"
    cache.mkdir()
    for name in (
        "cutlass_moe.cpython-311.pyc",
        "cutlass_moe.cpython-312.opt-1.pyc",
        "cutlass_moe_other.cpython-311.pyc",
    ):
        (cache / name).write_bytes(b"stale")
    patches.apply(tree, series.load(SERIES), RELEASE)
    assert [path.name for path in cache.iterdir()] == ["cutlass_moe_other.cpython-311.pyc"]


def test_a_hard_link_into_a_package_cache_is_broken_not_followed(tree: Path, tmp_path: Path) -> None:
    os.link(tree / EXPERTS, tmp_path / "cached.py")
    before = (tmp_path / "cached.py").read_bytes()
    patches.apply(tree, series.load(SERIES), RELEASE)
    assert (tmp_path / "cached.py").read_bytes() == before
    assert "swiglu_limit" in (tree / EXPERTS).read_text()


def test_what_upstream_has_is_left_alone(tree: Path) -> None:
    replace(
        tree / O_PROJ,
        "(wo_a.weight, wo_a.weight_scale_inv),",
        '(wo_a.weight, wo_a.weight_scale if hasattr(wo_a, "weight_scale") else wo_a.weight_scale_inv),',
    )
    before = (tree / O_PROJ).read_bytes()
    states = [result.state for result in patches.apply(tree, series.load(SERIES), RELEASE)]
    assert states == [State.APPLIED, State.APPLIED, State.APPLIED, State.ALREADY_UPSTREAM, State.APPLIED]
    assert (tree / O_PROJ).read_bytes() == before


def test_every_patch_that_fails_is_named_and_nothing_is_written(tree: Path) -> None:
    replace(tree / MODEL, "hf_to_vllm_mapper = _make", "hf_to_vllm_mapper = _new_make")
    replace(tree / EXPERTS, "            self.group_size,\n", "            self.group_sizes,\n")
    (tree / MTP).unlink()
    before = bytes_of(tree)
    with pytest.raises(PatchError) as raised:
        patches.apply(tree, series.load(SERIES), RELEASE)
    assert str(raised.value) == (
        f"3 of 5 patches fail on vLLM 0.23.0 in {tree}:\n"
        f"  0001-packed-modules-mapping: {MODEL}: hunk 1 of 1 (line 1245): the lines that it changes do not occur\n"
        f"  0002-packed-modules-mapping-mtp: {MTP}: No such file or directory\n"
        f"  0005-w4a8-swiglu-clamp: {EXPERTS}: hunk 3 of 3 (line 1429): the lines that it changes do not occur\n"
        f"  next: make the patch again from this version's {MODEL}"
    )
    assert raised.value.exit_code == 11
    assert bytes_of(tree) == before


def test_a_patch_without_its_effect_fails(tree: Path, tmp_path: Path) -> None:
    text = (SERIES / "0005-w4a8-swiglu-clamp.patch").read_text()
    (tmp_path / "0005-weak.patch").write_text(
        text.replace("+            self.moe_config.swiglu_limit,", "+            None,")
    )
    before = bytes_of(tree)
    with pytest.raises(PatchError) as raised:
        patches.check(tree, series.load(tmp_path), RELEASE)
    assert str(raised.value) == (
        f"1 of 1 patches fail on vLLM 0.23.0 in {tree}:\n"
        f"  0005-weak: applies, without its effect w4a8-swiglu-clamp: {EXPERTS}: SILU with swiglu_limit 10.0: "
        "silu_and_mul_with_clamp and scaled_fp8_quant should run between the matmuls, "
        "not silu_and_mul, scaled_fp8_quant\n"
        "  next: compare the patch with its proof"
    )
    assert bytes_of(tree) == before


def test_effects_that_were_lost_are_all_named(tree: Path) -> None:
    patches.apply(tree, series.load(SERIES), RELEASE)
    write_tree(tree, {MTP: "class DeepSeekV4MTP:\n    pass\n", MODEL: "class DeepseekV4ForCausalLM:\n    pass\n"})
    with pytest.raises(PatchError) as raised:
        patches.in_effect(tree, series.load(SERIES))
    assert str(raised.value) == (
        f"2 of 5 patches not in effect in {tree}:\n"
        f"  0001-packed-modules-mapping: {MODEL}: DeepseekV4ForCausalLM has no packed_modules_mapping\n"
        f"  0002-packed-modules-mapping-mtp: {MTP}: DeepSeekV4MTP has no packed_modules_mapping\n"
        "  next: build the image again: dsv4 build"
    )


def test_a_tree_that_cannot_be_written_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bytes_of(tree)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("shutil.copymode", refuse)
    with pytest.raises(PatchError) as raised:
        patches.apply(tree, series.load(SERIES), RELEASE)
    assert str(raised.value) == (
        f"{tree / MODEL} cannot be written: Read-only file system\n  next: run this as the owner of the tree"
    )
    assert bytes_of(tree) == before


def test_the_installed_vllm_is_found_without_importing_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError) as raised:
        patches.find_vllm()
    assert str(raised.value) == (
        "vllm is not installed for this Python\n  next: name an unpacked vLLM with --source DIR"
    )
    monkeypatch.syspath_prepend(str(tree))
    assert patches.find_vllm() == tree
    assert "vllm" not in sys.modules


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    patches.add_arguments(parser)
    patches.run(parser.parse_args([*words, "--series", str(SERIES)]))


@pytest.mark.parametrize("source", [".", "vllm"])
def test_the_verb_prints_one_line_per_patch(source: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("check", "--source", str(tree / source), "--only", "0005-w4a8-swiglu-clamp,0003-hash-moe-layer-type")
    run("apply", "--source", str(tree / source), "--only", "0003-hash-moe-layer-type")
    run("effects", "--source", str(tree / source), "--only", "0003-hash-moe-layer-type")
    assert capsys.readouterr().out == (
        "0005-w4a8-swiglu-clamp applies (offset -1121, -1179, -1372)\n"
        "0003-hash-moe-layer-type applies (offset -16)\n"
        "0003-hash-moe-layer-type applied (offset -16)\n"
        "0003-hash-moe-layer-type in effect\n"
    )


def test_the_verb_prints_json(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("check", "--source", str(tree), "--only", "0004-o-proj-scale-name", "--json")
    assert json.loads(capsys.readouterr().out) == [
        {"patch": "0004-o-proj-scale-name", "state": "applies", "offsets": [-51], "since": ""}
    ]


def test_the_verb_works_on_the_installed_vllm(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tree))
    run("apply", "--only", "0003-hash-moe-layer-type")
    assert capsys.readouterr().out == "0003-hash-moe-layer-type applied (offset -16)\n"


def test_a_source_without_vllm_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        run("check", "--source", str(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path} holds no vllm package\n  next: name the directory that an unpacked vLLM wheel gives"
    )


def test_offsets_are_told_once_each() -> None:
    told = Result(patch="0001-a", state=State.APPLIED, offsets=(0, 5, 5, -2))
    assert str(told) == "0001-a applied (offset +5, -2)"


def upstream(tree: Path) -> None:
    """The small tree as 0.29.0 has the main model's mapping."""
    replace(
        tree / MODEL,
        "    def __init__(",
        "    packed_modules_mapping = {\n"
        '        "fused_wqa_wkv": ["wq_a", "wkv"], "fused_wkv_wgate": ["wkv", "wgate"], "gate_up_proj": ["w1", "w3"]\n'
        "    }\n\n    def __init__(",
    )


def test_what_a_later_release_has_is_proved_not_believed(tree: Path) -> None:
    two = series.load(SERIES, NAMES[:2])
    with pytest.raises(PatchError) as raised:
        patches.check(tree, two, Release(0, 29, 0))
    assert str(raised.value) == (
        f"2 of 2 patches fail on vLLM 0.29.0 in {tree}:\n"
        "  0001-packed-modules-mapping: should be upstream since 0.29.0, but its effect packed-modules-mapping is not "
        f"there: {MODEL}: DeepseekV4ForCausalLM has no packed_modules_mapping\n"
        "  0002-packed-modules-mapping-mtp: should be upstream since 0.29.0, but its effect "
        f"packed-modules-mapping-mtp is not there: {MTP}: DeepSeekV4MTP has no packed_modules_mapping\n"
        "  next: look at what upstream did there, then mend First-release or the proof"
    )
    upstream(tree)
    before = bytes_of(tree)
    assert [str(result) for result in patches.apply(tree, two, Release(0, 30, 0))] == [
        "0001-packed-modules-mapping already upstream since 0.29.0",
        "0002-packed-modules-mapping-mtp already upstream since 0.29.0",
    ]
    assert bytes_of(tree) == before


def test_a_release_before_the_first_is_refused(tree: Path) -> None:
    with pytest.raises(PatchError) as raised:
        patches.check(tree, series.load(SERIES, NAMES[:1]), Release(0, 21, 0))
    assert raised.value.message == (
        f"1 of 1 patches fail on vLLM 0.21.0 in {tree}:\n"
        "  0001-packed-modules-mapping: is made for 0.22.0 until before 0.29.0, not for 0.21.0"
    )


def test_the_verb_reads_the_release_from_the_tree_or_is_told(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(tree / "vllm/_version.py", "0.23.0", "0.23.1rc1.dev901+g2f3f441f8")
    only = ("--source", str(tree), "--only", "0003-hash-moe-layer-type")
    with pytest.raises(ConfigError) as raised:
        run("check", *only)
    assert str(raised.value) == (
        f"{tree} is a commit's: '0.23.1rc1.dev901+g2f3f441f8' is no vLLM release\n"
        "  next: name the release that it is like with --release"
    )
    run("check", *only, "--release", "0.24.0")
    assert capsys.readouterr().out == "0003-hash-moe-layer-type applies (offset -16)\n"
    (tree / "vllm/_version.py").write_text("nothing = 1\n")
    with pytest.raises(PatchError, match=r"vllm/_version\.py: says no version"):
        run("check", *only)
