"""The matrix: every patch on every release of pins.toml, on the real files of their wheels."""

import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.vllm_tree import SERIES
from helpers.wheels import RELEASES, tree

from dsv4_stack import __main__ as cli
from dsv4_stack.errors import PatchError
from dsv4_stack.guest import patches
from dsv4_stack.guest.patches import Result, State
from dsv4_stack.guest.patching import series
from dsv4_stack.guest.patching.clamp_effect import ACTIVATION, BASE, EXPERTS
from dsv4_stack.guest.patching.effects import missing
from dsv4_stack.guest.patching.layer_type_effect import CONFIG, REGISTRY
from dsv4_stack.guest.patching.mapping_effect import MODEL, MTP, PROPOSER
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.scale_effect import ATTENTION, O_PROJ
from dsv4_stack.guest.patching.series import Patch
from dsv4_stack.guest.patching.tree import Tree, release_of

pytestmark = pytest.mark.network

PATCHES = {patch.name: patch for patch in series.load(SERIES)}
NAMES = list(PATCHES)
READ_BY_PROOFS = (MODEL, MTP, PROPOSER, CONFIG, REGISTRY, O_PROJ, ATTENTION, ACTIVATION, BASE, EXPERTS)
# Every cell: the offsets where a patch applies, or the release since which upstream has it.
MATRIX: dict[str, list[tuple[int, ...] | str]] = {
    "0.22.1": [(168,), (-1,), (0,), (0,), (-8, -10, -19)],
    "0.23.0": [(0,), (0,), (0,), (0,), (0, 0, 0)],
    "0.24.0": [(76,), (4,), (0,), (2,), (5, 5, 5)],
    "0.25.1": [(117,), (4,), (0,), (2,), (5, 5, 5)],
    "0.26.0": [(146,), (4,), (0,), (2,), (5, 5, 5)],
    "0.27.0": [(218,), (26,), (0,), "0.27.0", (5, 5, 5)],
    "0.28.0": [(217,), (26,), (0,), "0.27.0", "0.28.0"],
    "0.29.0": ["0.29.0", "0.29.0", (0,), "0.27.0", "0.28.0"],
    "0.30.0": ["0.29.0", "0.29.0", (29,), "0.27.0", "0.28.0"],
    "0.33.0": ["0.29.0", "0.29.0", "0.33.0", "0.27.0", "0.28.0"],
    "0.32.0+cpu": ["0.29.0", "0.29.0", (29,), "0.27.0", "0.28.0"],
}
CELLS = [(release, name) for release in MATRIX for name in NAMES]
APPLYING = [(release, name) for release, name in CELLS if not isinstance(MATRIX[release][NAMES.index(name)], str)]


def release_named(name: str) -> Release:
    return RELEASES[name].release


def layouts(name: str) -> list[str]:
    """What the whole series does to this release, as text."""
    release = release_named(name)
    return [patch.layout(release).text for patch in series.needed(list(PATCHES.values()), release)]


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What the series and its proofs read of a release, for writing."""
    source = tree(getattr(request, "param", "0.23.0"))
    for path in ("vllm/__init__.py", "vllm/_version.py", *READ_BY_PROOFS):
        if (source / path).exists():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, tmp_path / path)
    return tmp_path


@pytest.fixture
def patch_series() -> tuple[Patch, ...]:
    return tuple(PATCHES.values())


def checksums(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): zlib.crc32(path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def test_the_matrix_is_of_every_release_that_is_pinned() -> None:
    assert MATRIX.keys() == RELEASES.keys()


@pytest.mark.parametrize(("release", "name"), CELLS)
def test_a_patch_applies_or_is_upstream(release: str, name: str) -> None:
    cell, plain = MATRIX[release][NAMES.index(name)], Tree(root=tree(release))
    assert release_of(plain) == release_named(release)
    (result,) = patches.check(plain.root, [PATCHES[name]], release_named(release))
    if isinstance(cell, str):
        assert result == Result(patch=name, state=State.ALREADY_UPSTREAM, since=cell)
    else:
        assert missing(PATCHES[name].effect, plain) != ""
        assert result == Result(patch=name, state=State.APPLIES, offsets=cell)


@pytest.mark.parametrize("copy", MATRIX, indirect=True)
def test_the_series_together_touches_nothing_else_and_is_in_effect(copy: Path, patch_series: tuple[Patch, ...]) -> None:
    release = release_of(Tree(root=copy))
    before = checksums(copy)
    patches.apply(copy, patch_series, release)
    changed = {path for path, checksum in checksums(copy).items() if before.get(path) != checksum}
    named = {file.path for patch in series.needed(patch_series, release) for file in patch.layout(release).files}
    assert changed == named
    assert [result.state for result in patches.in_effect(copy, patch_series)] == [State.IN_EFFECT] * 5


def test_each_patch_ends_where_its_header_says() -> None:
    """The last release that needs it and the first that does not follow each other in upstream's list of releases."""
    order = [
        "0.22.1",
        "0.23.0",
        "0.24.0",
        "0.25.1",
        "0.26.0",
        "0.27.0",
        "0.28.0",
        "0.29.0",
        "0.30.0",
        "0.32.0+cpu",
        "0.33.0",
    ]
    for column, name in enumerate(NAMES):
        upstream = [release for release in order if isinstance(MATRIX[release][column], str)]
        assert upstream[0] == PATCHES[name].first_release
        assert upstream == order[order.index(upstream[0]) :]


def test_the_neighbours_of_the_nightly_take_the_identical_series() -> None:
    """The commit itself lies between them; where its wheel is locked, `dsv4 patches check` fetches that too."""
    before, after = layouts("0.24.0"), layouts("0.25.1")
    assert (before, len(before)) == (after, 5)


def test_the_verb_checks_every_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patches", "check", "--release", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[f"{release}:", name] for release, name in CELLS]
    assert lines[-2:] == [
        "0.32.0+cpu: 0004-o-proj-scale-name already upstream since 0.27.0",
        "0.32.0+cpu: 0005-w4a8-swiglu-clamp already upstream since 0.28.0",
    ]


@pytest.mark.parametrize(("engine", "release"), [("v0.23.0", "0.23.0"), ("nightly", "0.24.0"), ("nightly", "0.25.1")])
def test_the_verb_checks_an_unpacked_wheel(engine: str, release: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patches", "check", "--engine", engine, "--source", str(tree(release))]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        [f"{engine}:", name, "applies"] for name in NAMES
    ]


def test_the_verb_knows_another_engines_wheel(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patches", "check", "--engine", "nightly", "--source", str(tree("0.33.0"))]) == 2
    assert capsys.readouterr().err == (
        f"error: {tree('0.33.0')} holds vLLM 0.33.0, and engine nightly is 0.24.0 or 0.25.1\n"
        "  next: name the engine of that release with --engine\n"
    )


@pytest.mark.parametrize("copy", ["0.24.0"], indirect=True)
def test_the_verb_says_which_anchor_has_moved(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = copy / "vllm/models/deepseek_v4/nvidia/ops/o_proj.py"
    moved.write_text(moved.read_text().replace("weight_scale_inv", "scale_of_weight"))
    assert cli.main(["patches", "check", "--source", str(copy)]) == 11
    said = capsys.readouterr().err
    assert said.startswith(f"error: 1 of 5 patches fail on vLLM 0.24.0 in {copy}:\n  0004-o-proj-scale-name: ")


def test_pins_say_what_each_wheel_requires() -> None:
    for name, facts in RELEASES.items():
        (metadata,) = tree(name).glob("vllm*.dist-info/METADATA")
        found = re.findall(r"(?m)^Requires-Dist: (torch|transformers)((?:[!<>=])[^;\n]*)", metadata.read_text())
        required = dict(reversed(found))
        assert (required["torch"].removeprefix("=="), required["transformers"]) == (facts.torch, facts.transformers), (
            name
        )


def test_apply_purges_the_bytecode_of_what_it_changes(tmp_path: Path, patch_series: tuple[Patch, ...]) -> None:
    copied = tmp_path / "tree"
    shutil.copytree(tree("0.23.0"), copied)
    command = [sys.executable, "-m", "compileall", "-q", str(copied / "vllm" / "models" / "deepseek_v4")]
    subprocess.run(command, check=True)
    before = checksums(copied)
    results = patches.apply(copied, patch_series, release_named("0.23.0"))
    assert [result.state for result in results] == [State.APPLIED] * 5
    after = checksums(copied)
    assert {path for path in after if before.get(path) != after[path]} == {MODEL, MTP, CONFIG, O_PROJ, EXPERTS}
    tag = sys.implementation.cache_tag
    stale = [Path(path).parent / "__pycache__" / f"{Path(path).stem}.{tag}.pyc" for path in (MODEL, MTP, O_PROJ)]
    assert before.keys() - after.keys() == {str(path) for path in stale}
    again = patches.apply(copied, patch_series, release_named("0.23.0"))
    assert [str(result) for result in again] == [f"{name} in effect" for name in NAMES]
    assert checksums(copied) == after


@pytest.mark.parametrize(
    "tool", [["git", "apply", "--check"], ["patch", "--dry-run", "--batch", "--fuzz=0", "-p1", "-i"]]
)
@pytest.mark.parametrize("release", [name for name in MATRIX if layouts(name)])
def test_the_usual_tools_take_the_series_too(release: str, tool: list[str], tmp_path: Path) -> None:
    if not shutil.which(tool[0]):
        pytest.skip(f"{tool[0]} is not installed")
    (tmp_path / "series.patch").write_text("".join(layouts(release)))
    subprocess.run([*tool, str(tmp_path / "series.patch")], cwd=tree(release), check=True, capture_output=True)


class Anchor(NamedTuple):
    """Lines that a patch needs together, and the hunk that fails where they are not."""

    path: str
    lines: str
    hunk: str


ANCHORS = {
    NAMES[0]: Anchor(MODEL, '    hf_to_vllm_mapper = _make_deepseek_v4_weights_mapper("fp4")\n', "1 of 1 (line 1245)"),
    NAMES[1]: Anchor(MTP, "class DeepSeekV4MTP(nn.Module):\n", "1 of 1 (line 256)"),
    NAMES[2]: Anchor(CONFIG, "        super().__init__(**kwargs)\n", "1 of 1 (line 23)"),
    NAMES[3]: Anchor(O_PROJ, "        (wo_a.weight, wo_a.weight_scale_inv),\n", "1 of 1 (line 58)"),
    NAMES[4]: Anchor(EXPERTS, "            topk_weights,\n            self.group_size,\n", "3 of 3 (line 1429)"),
}
OLD_ANCHOR = Anchor(ATTENTION, "        wo_a_scale = self.wo_a.weight_scale_inv\n", "1 of 1 (line 327)")


@pytest.mark.parametrize(("copy", "name"), APPLYING, indirect=["copy"], ids=str)
def test_one_broken_anchor_turns_one_cell_red(copy: Path, name: str, patch_series: tuple[Patch, ...]) -> None:
    release = release_of(Tree(root=copy))
    path, lines, hunk = OLD_ANCHOR if (name, str(release)) == (NAMES[3], "0.22.1") else ANCHORS[name]
    text = (copy / path).read_text()
    assert text.count(lines) == 1
    first, rest = lines.split("\n", 1)
    (copy / path).write_text(text.replace(lines, f"{first}\n# One line more, and the anchor is elsewhere.\n{rest}"))
    before = checksums(copy)
    with pytest.raises(PatchError) as raised:
        patches.apply(copy, patch_series, release)
    assert raised.value.exit_code == 11
    assert str(raised.value) == (
        f"1 of 5 patches fail on vLLM {release} in {copy}:\n"
        f"  {name}: {path}: hunk {hunk}: the lines that it changes do not occur\n"
        f"  next: make the patch again from this version's {path}"
    )
    assert checksums(copy) == before
    others = [patch for patch in patch_series if patch.name != name]
    assert len(patches.check(copy, others, release)) == 4
