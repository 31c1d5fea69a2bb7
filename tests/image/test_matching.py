"""Our reading of how vLLM finds a layer's quantization, held against vLLM's own code of every release."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.wheels import RELEASES, tree
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest import convert
from dsv4_stack.guest.lint import matching, report
from dsv4_stack.guest.lint.layers import FUSED
from dsv4_stack.guest.lint.matching import Matching, MixedShardsError
from dsv4_stack.guest.loader import Loader
from dsv4_stack.guest.patching.tree import Tree

pytestmark = pytest.mark.network

CONFIG = Path(__file__).parents[1] / "data" / "config_base.json"
LAST = ("wq_a", "wkv", "wq_b", "fused_wqa_wkv", "gate_up_proj", "w1", "w3", "wgate", "fused_wkv_wgate")
names = st.builds(
    "model.layers.{}.{}.{}".format, st.integers(0, 12), st.sampled_from(["attn", "ffn"]), st.sampled_from(LAST)
)
regexes = st.builds(
    "re:{}{}{}".format,
    st.sampled_from(["", ".*", ".*attn\\.", ".*\\.layers\\.1\\..*", "model\\.layers\\.\\d\\."]),
    st.sampled_from(["", *LAST, "(wq_a|wkv)", "(w1|w3|gate_up_proj)"]),
    st.sampled_from(["", "$", ".*"]),
)
classes = st.sampled_from(["Linear", "MergedColumnParallelLinear", "RoutedExperts", "re:.*Parallel.*"])
patterns = st.lists(names | regexes | classes, max_size=4)
mappings = st.sampled_from([{}, FUSED])
class_names = st.sampled_from(["MergedColumnParallelLinear", "ReplicatedLinear", "RoutedExperts"])


def outcome(found_by: Matching, name: str, ignore: Sequence[str], fused: dict[str, list[str]]) -> bool | None:
    try:
        return found_by.ignores(name, ignore, fused)
    except MixedShardsError:
        return None


@pytest.fixture(scope="module")
def both() -> dict[str, tuple[Matching, Matching]]:
    """Ours and vLLM's, by release."""
    return {
        name: (matching.own(facts.release), matching.of_tree(Tree(root=tree(name)))) for name, facts in RELEASES.items()
    }


@given(names, class_names, patterns, mappings)
def test_every_release_finds_the_target_that_we_find(
    both: dict[str, tuple[Matching, Matching]],
    name: str,
    class_name: str,
    targets: list[str],
    fused: dict[str, list[str]],
) -> None:
    for release, (ours, theirs) in both.items():
        assert ours.target(name, class_name, targets, fused) == theirs.target(name, class_name, targets, fused), release


@given(names, patterns, mappings)
def test_every_release_ignores_what_we_say(
    both: dict[str, tuple[Matching, Matching]], name: str, ignore: list[str], fused: dict[str, list[str]]
) -> None:
    for release, (ours, theirs) in both.items():
        assert outcome(ours, name, ignore, fused) == outcome(theirs, name, ignore, fused), release


@pytest.mark.parametrize("release", RELEASES)
def test_the_lint_of_the_real_config_is_the_same_either_way(
    release: str, both: dict[str, tuple[Matching, Matching]]
) -> None:
    for content in (CONFIG.read_bytes(), convert.convert(CONFIG.read_bytes(), "config.json")[1]):
        ours, theirs = (
            report.examine(json.loads(content), Loader(release=RELEASES[release].release, ranks=2), found_by)
            for found_by in both[release]
        )
        assert ours == theirs
        assert ours.problems == ours.draft_problems == ()
