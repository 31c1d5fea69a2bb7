"""What vLLM would make of a config.json: the base's, our conversion of it, and ways in which one can be wrong."""

import json
from copy import deepcopy
from typing import Any

import pytest
from helpers.hub import CONFIG_BASE

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest import convert
from dsv4_stack.guest.lint import matching, report
from dsv4_stack.guest.lint.layers import FUSED
from dsv4_stack.guest.lint.matching import MixedShardsError
from dsv4_stack.guest.loader import Loader
from dsv4_stack.guest.patching.releases import Release

BASE: dict[str, Any] = json.loads(CONFIG_BASE.read_bytes())
W4A8: dict[str, Any] = json.loads(convert.convert(CONFIG_BASE.read_bytes(), "config.json")[1])
OLD, MIDDLE, NEW = Release(0, 23, 0), Release(0, 28, 0), Release(0, 33, 0)
RELEASES = [OLD, Release(0, 24, 0), MIDDLE, Release(0, 30, 0), NEW]
FP8 = ["attn.fused_wqa_wkv", "attn.wq_b", "attn.wo_a", "attn.wo_b"]
BF16 = ["ffn.shared_experts.gate_up_proj", "ffn.shared_experts.down_proj", "attn.indexer.wq_b"]
ATTENTION = "re:.*attn\\.(wq_a|wq_b|wkv|wo_a|wo_b)$"


@pytest.fixture
def config() -> dict[str, Any]:
    return deepcopy(W4A8)


def groups(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    found = config["quantization_config"]["config_groups"]
    return found["group_0"], found["group_1"]


@pytest.mark.parametrize("release", RELEASES, ids=str)
@pytest.mark.parametrize(("config", "experts"), [(BASE, "INT4"), (W4A8, "INT4, FP8 activations")])
def test_both_checkpoints_load_as_they_are_stored(config: dict[str, Any], experts: str, release: Release) -> None:
    found = report.examine(config, Loader(release=release, ranks=2))
    wanted = dict.fromkeys(FP8, "FP8") | dict.fromkeys(BF16, "BF16") | {"ffn.experts": experts}
    assert {kind: scheme for kind, scheme in found.schemes.items() if not kind.startswith("mtp")} == wanted
    assert {scheme for kind, scheme in found.schemes.items() if kind.startswith("mtp")} == {"BF16"}
    assert (found.problems, found.draft_problems, found.mapping_matters, found.draft_excluded) == ((), (), False, True)


def test_the_summary_reads_as_one_line() -> None:
    assert report.examine(W4A8, Loader(release=NEW, ranks=2)).summary() == (
        "FP8: attn.fused_wqa_wkv, attn.wq_b, attn.wo_a, attn.wo_b; "
        "BF16: ffn.shared_experts.gate_up_proj, ffn.shared_experts.down_proj, attn.indexer.wq_b; "
        "INT4, FP8 activations: ffn.experts; packed_modules_mapping does not matter; MTP draft excluded"
    )


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_the_mapping_matters_where_no_target_names_the_fused_layer(config: dict[str, Any], release: Release) -> None:
    groups(config)[0]["targets"] = [ATTENTION]
    found = report.examine(config, Loader(release=release, ranks=2))
    assert (found.mapping_matters, found.problems) == (True, ())


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_a_draft_that_is_not_excluded_is_found(config: dict[str, Any], release: Release) -> None:
    ignore = config["quantization_config"]["ignore"]
    ignore.remove("re:.*\\.layers\\.43\\..*")
    # As the quantizer wrote it: it matches the checkpoint's mtp.0, and not vLLM's model.layers.43.mtp_block.
    ignore[ignore.index("re:.*mtp.*")] = "re:.*mtp\\..*"
    found = report.examine(config, Loader(release=release, ranks=2))
    assert (found.problems, found.draft_excluded) == ((), False)
    experts = ["w1", "w3", "w2"] if release >= Release(0, 32, 0) else ["gate_proj", "up_proj", "down_proj"]
    prefix = "model.layers.43.mtp_block"
    assert found.draft_problems == (
        *(
            f"{prefix}.attn.{name} would be loaded as FP8, but is stored as BF16"
            for name in ("fused_wqa_wkv", "wq_b", "wo_a", "wo_b")
        ),
        *(
            f"{prefix}.ffn.experts.0.{name} would be loaded as INT4, FP8 activations, but is stored as BF16"
            for name in experts
        ),
    )


def test_one_layer_that_differs_is_named(config: dict[str, Any]) -> None:
    config["quantization_config"]["ignore"].append("model.layers.7.attn.wq_b")
    found = report.examine(config, Loader(release=NEW, ranks=2))
    assert found.schemes["attn.wq_b"] == "FP8 or BF16"
    assert found.problems == ("model.layers.7.attn.wq_b would be loaded as BF16, but is stored as FP8",)


def test_half_of_a_fused_layer_ignored_is_what_vllm_refuses(config: dict[str, Any]) -> None:
    groups(config)[0]["targets"] = [ATTENTION]
    config["quantization_config"]["ignore"].append("re:model\\.layers\\.3\\.attn\\.wkv$")
    for release in RELEASES:
        found = report.examine(config, Loader(release=release, ranks=2))
        assert len(found.problems) == 1
        assert "model.layers.3.attn.fused_wqa_wkv" in found.problems[0]


@pytest.mark.parametrize(
    ("ranks", "problems"),
    [
        (1, ()),
        (2, ()),
        (4, ()),
        (8, ()),
        (3, ("moe_intermediate_size 2048 on 3 ranks is no multiple of 256 each",)),
        (16, ("moe_intermediate_size 2048 on 16 ranks is no multiple of 256 each",)),
    ],
)
def test_the_kernels_shapes_at_each_number_of_ranks(ranks: int, problems: tuple[str, ...]) -> None:
    assert report.examine(W4A8, Loader(release=NEW, ranks=ranks)).problems == problems
    assert report.examine(BASE, Loader(release=NEW, ranks=ranks)).problems == (), "Marlin has no such rule"


@pytest.mark.parametrize(
    ("part", "change", "problem"),
    [
        ("weights", {"group_size": 32}, "experts' weights.group_size is 32, not 128"),
        ("weights", {"actorder": "group"}, "experts' weights.actorder is 'group', not None or 'static' or 'weight'"),
        ("weights", {"symmetric": False}, "experts' weights.symmetric is False, not True"),
        ("input_activations", {"strategy": "group"}, "experts' input_activations.strategy is 'group', not 'token'"),
        ("input_activations", {"dynamic": False}, "experts' input_activations.dynamic is False, not True"),
        ("input_activations", {"num_bits": 4}, "experts' input_activations.num_bits is 4, not 8"),
    ],
)
def test_what_the_kernel_does_not_take_is_named(
    config: dict[str, Any], part: str, change: dict[str, Any], problem: str
) -> None:
    groups(config)[1][part] |= change
    assert report.examine(config, Loader(release=NEW, ranks=2)).problems == (problem,)


def test_experts_without_a_group_are_a_problem(config: dict[str, Any]) -> None:
    del config["quantization_config"]["config_groups"]["group_1"]
    assert report.examine(config, Loader(release=NEW, ranks=2)).problems == (
        "ffn.experts would be loaded as BF16: no group of the config is theirs",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "the config is none of a quantized DeepSeek-V4"),
        ({"quantization_config": None}, "the config is none of a quantized DeepSeek-V4"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quant_method is 'fp8', not 'compressed-tensors'"),
        ({"num_hidden_layers": "many"}, "the config cannot be read: ValueError: "),
        ({"compress_ratios": [4]}, "the config cannot be read: IndexError: "),
    ],
)
def test_another_config_is_refused(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        report.examine(config | change, Loader(release=NEW, ranks=2))
    assert raised.value.message.startswith(message)


def test_the_order_of_class_and_parts_changed_in_0_27() -> None:
    targets = ["Linear", "re:.*\\.wq_a$", "re:.*\\.wkv$"]
    name = "model.layers.0.attn.fused_wqa_wkv"
    found = [matching.own(release).target(name, "MergedColumnParallelLinear", targets, FUSED) for release in (OLD, NEW)]
    assert found == ["Linear", "re:.*\\.wq_a$"]


def test_a_fused_name_in_the_ignore_list_counts_from_0_30_on_as_a_pattern_too() -> None:
    name, ignore = "model.layers.0.attn.fused_wqa_wkv", ["re:.*fused_wqa_wkv$"]
    assert [matching.own(release).ignores(name, ignore, FUSED) for release in RELEASES] == [False] * 3 + [True] * 2
    for release in RELEASES:
        assert matching.own(release).ignores(name, [name], FUSED)
        with pytest.raises(MixedShardsError):
            matching.own(release).ignores(name, ["re:.*wq_a$"], FUSED)
