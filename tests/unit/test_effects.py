"""The proofs: absent before the patch, there after it, and not fooled by code that only looks like it."""

from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.vllm_tree import SERIES, write_tree

from dsv4_stack.guest.patching import diff, series
from dsv4_stack.guest.patching.clamp_effect import ACTIVATION, BASE, EXPERTS
from dsv4_stack.guest.patching.effects import Effect, missing
from dsv4_stack.guest.patching.layer_type_effect import CONFIG, REGISTRY
from dsv4_stack.guest.patching.mapping_effect import MODEL, MTP, PROPOSER
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.scale_effect import ATTENTION, O_PROJ
from dsv4_stack.guest.patching.tree import Tree

RELEASE = Release(0, 23, 0)
MAPPING = "{'fused_wqa_wkv': ['wq_a', 'wkv'], 'fused_wkv_wgate': ['wkv', 'wgate'], 'gate_up_proj': ['w1', 'w3']}"
ALLOWED = "('sliding_attention', 'compressed_sparse_attention', 'sparse', 'dense', 'moe')"

ABSENT = {
    Effect.PACKED_MODULES_MAPPING: f"{MODEL}: DeepseekV4ForCausalLM has no packed_modules_mapping",
    Effect.PACKED_MODULES_MAPPING_MTP: f"{MTP}: DeepSeekV4MTP has no packed_modules_mapping",
    Effect.HASH_MOE_LAYER_TYPE: (
        f"{CONFIG}: with Transformers 5.12: the `mlp_layer_types` entries must be in {ALLOWED} "
        "but got ['hash_moe', 'moe']"
    ),
    Effect.O_PROJ_SCALE_NAME: (
        f"{O_PROJ}: the o projection of a layer with weight_scale: "
        "'ColumnParallelLinear' object has no attribute 'weight_scale_inv'"
    ),
    Effect.W4A8_SWIGLU_CLAMP: (
        f"{EXPERTS}: SILU with swiglu_limit 10.0: silu_and_mul_with_clamp and scaled_fp8_quant should run "
        "between the matmuls, not silu_and_mul, scaled_fp8_quant"
    ),
}


@pytest.fixture
def plain(tmp_path: Path) -> Tree:
    return Tree(root=write_tree(tmp_path))


@pytest.fixture
def patched(plain: Tree) -> Tree:
    for patch in series.load(SERIES):
        plain = plain.edited(
            {file.path: diff.apply(plain.read(file.path), file).data for file in patch.layout(RELEASE).files}
        )
    return plain


def changed(tree: Tree, path: str, old: str, new: str) -> Tree:
    text = tree.read(path).decode()
    assert text.count(old) == 1, old
    return tree.edited({path: text.replace(old, new).encode()})


@pytest.mark.parametrize("effect", Effect)
def test_absent_before_and_there_after(effect: Effect, plain: Tree, patched: Tree) -> None:
    assert missing(effect, plain) == ABSENT[effect]
    assert missing(effect, patched) == ""


class Damage(NamedTuple):
    """A patched file that no longer does what it should: `new` instead of `old`, and why the proof says so."""

    effect: Effect
    old: str
    new: str
    reason: str


PATHS = {
    Effect.PACKED_MODULES_MAPPING: MODEL,
    Effect.PACKED_MODULES_MAPPING_MTP: MTP,
    Effect.HASH_MOE_LAYER_TYPE: CONFIG,
    Effect.O_PROJ_SCALE_NAME: O_PROJ,
    Effect.W4A8_SWIGLU_CLAMP: EXPERTS,
}
SWAPPED = MAPPING.replace("['w1', 'w3']", "['w3', 'w1']")
CALL = "\n_allow_deepseek_v4_layer_types()"
SCALE = 'wo_a.weight_scale if hasattr(wo_a, "weight_scale") else wo_a.weight_scale_inv'
SCALE_SWAPPED = 'wo_a.weight_scale_inv if hasattr(wo_a, "weight_scale_inv") else wo_a.weight_scale'
CONDITION = "if activation == MoEActivation.SILU and swiglu_limit is not None:"
SILU, GELU, NO_LIMIT = "SILU with swiglu_limit 10.0", "GELU with swiglu_limit 10.0", "SILU with swiglu_limit None"
BETWEEN = "and scaled_fp8_quant should run between the matmuls, not"
CLAMP = "silu_and_mul_with_clamp"
FIRST_MATMUL = "        s_strides1,\n    )\n"


@pytest.mark.parametrize(
    "damage",
    [
        Damage(
            Effect.PACKED_MODULES_MAPPING,
            '["w1", "w3"]',
            '["w3", "w1"]',
            f"DeepseekV4ForCausalLM.packed_modules_mapping is {SWAPPED}, not {MAPPING}",
        ),
        Damage(
            Effect.PACKED_MODULES_MAPPING,
            "packed_modules_mapping =",
            "packed_modules_mappings =",
            "DeepseekV4ForCausalLM has no packed_modules_mapping",
        ),
        Damage(
            Effect.PACKED_MODULES_MAPPING_MTP,
            "    def __init__(",
            "    packed_modules_mapping = {}\n\n    def __init__(",
            f"DeepSeekV4MTP.packed_modules_mapping is {{}}, not {MAPPING}",
        ),
        Damage(
            Effect.PACKED_MODULES_MAPPING_MTP,
            "class DeepSeekV4MTP(",
            "class DeepSeekV5MTP(",
            "defines no DeepSeekV4MTP",
        ),
        Damage(
            Effect.HASH_MOE_LAYER_TYPE,
            CALL,
            CALL.replace("_", "# _", 1),
            f"with Transformers 5.12: the `mlp_layer_types` entries must be in {ALLOWED} but got ['hash_moe', 'moe']",
        ),
        Damage(
            Effect.HASH_MOE_LAYER_TYPE,
            ', "ALLOWED_MLP_LAYER_TYPES"',
            ",",
            (
                "with Transformers 5.15: the `mlp_layer_types` entries must be in ('sparse', 'dense') "
                "but got ['hash_moe', 'moe']"
            ),
        ),
        Damage(
            Effect.HASH_MOE_LAYER_TYPE,
            "(*allowed, *missing)",
            "(*missing, *allowed)",
            (
                "with Transformers 5.8, loaded twice: ALLOWED_LAYER_TYPES is "
                f"('hash_moe', {ALLOWED[1:]}, not {ALLOWED[:-1]}, 'hash_moe')"
            ),
        ),
        Damage(
            Effect.HASH_MOE_LAYER_TYPE,
            '("hash_moe", "moe") if t not in allowed',
            '("hash_moe", "moe")',
            (
                "with Transformers 5.8, loaded twice: ALLOWED_LAYER_TYPES is "
                f"{ALLOWED[:-1]}, 'hash_moe', 'moe', 'hash_moe', 'moe'), not {ALLOWED[:-1]}, 'hash_moe')"
            ),
        ),
        Damage(
            Effect.HASH_MOE_LAYER_TYPE,
            "    def __init__(self, rope",
            "    def validate_layer_type(self, *_):\n        pass\n\n    def __init__(self, rope",
            "with Transformers 5.12: any layer type is accepted",
        ),
        Damage(
            Effect.O_PROJ_SCALE_NAME,
            SCALE,
            "wo_a.weight_scale",
            (
                "the o projection of a layer with weight_scale_inv: "
                "'ColumnParallelLinear' object has no attribute 'weight_scale'"
            ),
        ),
        Damage(
            Effect.O_PROJ_SCALE_NAME,
            SCALE,
            SCALE_SWAPPED,
            "the o projection of a layer with weight_scale and weight_scale_inv multiplies with another scale",
        ),
        Damage(
            Effect.O_PROJ_SCALE_NAME,
            "    return wo_b(z.flatten(1))",
            "    return z",
            "the o projection does not call fp8_einsum once and then wo_b",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            "            self.moe_config.swiglu_limit,\n",
            "",
            "its code cannot be run with stand-ins: TypeError: run_cutlass_moe_w4a8_fp8() missing 1 required "
            "positional argument: 'permute_scratch'",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            "            self.moe_config.swiglu_limit,\n",
            "            None,\n",
            f"{SILU}: {CLAMP} {BETWEEN} silu_and_mul, scaled_fp8_quant",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            "float(swiglu_limit))",
            "7.0)",
            f"{SILU}: {CLAMP} gets [7.0] beside output and input",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            "float(swiglu_limit))",
            "float(swiglu_limit), 1.702, 1.0)",
            f"{SILU}: {CLAMP} gets [10.0, 1.702, 1.0] beside output and input",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            "clamp(act_out, mm1_out,",
            "clamp(mm1_out, act_out,",
            f"{SILU}: {CLAMP} does not go from the first matmul's output to what is quantized",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            CONDITION,
            "if swiglu_limit is not None:",
            f"{GELU}: gelu_and_mul {BETWEEN} {CLAMP}, scaled_fp8_quant",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            CONDITION,
            "if activation == MoEActivation.SILU:\n        swiglu_limit = swiglu_limit or 10.0",
            f"{NO_LIMIT}: silu_and_mul {BETWEEN} {CLAMP}, scaled_fp8_quant",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            "    else:\n        apply_moe_activation(",
            "    if True:\n        apply_moe_activation(",
            f"{SILU}: {CLAMP} {BETWEEN} {CLAMP}, silu_and_mul, scaled_fp8_quant",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            FIRST_MATMUL,
            f"{FIRST_MATMUL}    return\n",
            f"{SILU}: cutlass_w4a8_moe_mm should run twice, but runs 1x",
        ),
        Damage(
            Effect.W4A8_SWIGLU_CLAMP,
            f"    {CONDITION}",
            f"    a_new_helper()\n    {CONDITION}",
            "its code cannot be run with stand-ins: NameError: name 'a_new_helper' is not defined",
        ),
    ],
)
def test_is_not_fooled(damage: Damage, patched: Tree) -> None:
    path = PATHS[damage.effect]
    found = missing(damage.effect, changed(patched, path, damage.old, damage.new))
    assert found.removeprefix(f"{path}: ") == damage.reason


@pytest.mark.parametrize(
    ("effect", "path"),
    [
        (Effect.PACKED_MODULES_MAPPING, MODEL),
        (Effect.PACKED_MODULES_MAPPING_MTP, MTP),
        (Effect.HASH_MOE_LAYER_TYPE, CONFIG),
        (Effect.O_PROJ_SCALE_NAME, O_PROJ),
        (Effect.W4A8_SWIGLU_CLAMP, ACTIVATION),
        (Effect.W4A8_SWIGLU_CLAMP, BASE),
        (Effect.W4A8_SWIGLU_CLAMP, EXPERTS),
    ],
)
def test_names_the_file_that_is_gone_or_broken(effect: Effect, path: str, patched: Tree) -> None:
    broken = patched.edited({path: b"def broken(:\n"})
    assert missing(effect, broken) == f"{path}: cannot be parsed: invalid syntax (<unknown>, line 1)"
    (patched.root / path).unlink()
    without = Tree(root=patched.root, edits={name: data for name, data in patched.edits.items() if name != path})
    assert missing(effect, without) == f"{path}: No such file or directory"


# As upstream has them: the mapping of vLLM 0.29, a scale by branch on the dtype as in 0.30, the clamp by way of an
# activation_config as in 0.28, and a config with a validator of its own as in Transformers.
UPSTREAM = {
    MODEL: """\
class DeepseekV4ForCausalLM(nn.Module):
    packed_modules_mapping: dict[str, list[str]] = {
        "gate_up_proj": ["w1", "w3"],
        "fused_wqa_wkv": ["wq_a", "wkv"],
        "fused_wkv_wgate": ["wkv", "wgate"],
    }
""",
    CONFIG: """\
from transformers import PreTrainedConfig


class DeepseekV4Config(PreTrainedConfig):
    def validate_layer_type(self, layer_types, mlp_layer_types):
        if set(mlp_layer_types) - {"hash_moe", "moe"}:
            raise ValueError("not a layer of DeepSeek-V4")
""",
    O_PROJ: """\
def deep_gemm_fp8_o_proj(o, positions, cos_sin_cache, wo_a, wo_b, *, n_groups, o_lora_rank, einsum_recipe, **rest):
    use_fp8 = wo_a.weight.dtype == torch.float8_e4m3fn
    assert not isinstance(o, QuantizedActivation)
    rotated, scale = fused_inv_rope_fp8_quant(o, positions, cos_sin_cache, quantize=use_fp8)
    z = torch.empty((rotated.shape[0], n_groups, o_lora_rank), device=rotated.device, dtype=torch.bfloat16)
    if use_fp8:
        block_scale = wo_a.weight_scale if hasattr(wo_a, "weight_scale") else wo_a.weight_scale_inv
        fp8_einsum("bhr,hdr->bhd", (rotated, scale), (wo_a.weight, block_scale), z, recipe=einsum_recipe)
    else:
        torch.bmm(rotated, wo_a.weight, out=z)
    return wo_b(z.flatten(1))
""",
    ACTIVATION: """\
from dataclasses import dataclass
from enum import Enum

import torch

from vllm.platforms import current_platform


class MoEActivation(Enum):
    SILU = "silu"
    GELU = "gelu"


@dataclass(frozen=True)
class ActivationConfig:
    clamp_limit: float | None = None
    alpha: float = 1.0

    @classmethod
    def of(cls, moe_config: "FusedMoEConfig") -> "ActivationConfig":
        alpha = moe_config.swiglu_alpha
        return cls(moe_config.swiglu_limit, 1.0 if alpha is None else alpha)


def apply_moe_activation(activation, output, input, *, activation_config):
    if activation == MoEActivation.SILU and activation_config.clamp_limit is not None:
        assert not current_platform.is_xpu()
        torch.ops._C.silu_and_mul_with_clamp(output, input, activation_config.clamp_limit, activation_config.alpha, 0.0)
    elif activation == MoEActivation.SILU:
        torch.ops._C.silu_and_mul(output, input)
    else:
        torch.ops._C.gelu_and_mul(output, input)
""",
    BASE: """\
class FusedMoEExperts:
    def __init__(self, moe_config, quant_config, max_num_tokens=None):
        self.activation_config = ActivationConfig.of(moe_config)
""",
    EXPERTS: """\
def run_cutlass_moe_w4a8_fp8(hidden_states, w1, w2, activation, activation_config):
    M, (_, K, N) = hidden_states.size(0), w2.shape
    mm1_out, act_out = _resize_cache(w1, (M, 2 * N)), _resize_cache(w1, (M, N))
    ops.cutlass_w4a8_moe_mm(mm1_out, hidden_states, w1)
    apply_moe_activation(activation, act_out, mm1_out, activation_config=activation_config)
    a2q, a2q_scale = ops.scaled_fp8_quant(act_out)
    ops.cutlass_w4a8_moe_mm(_resize_cache(w2, (M, K)), a2q, w2, a2q_scale)


class CutlassExpertsW4A8Fp8(mk.FusedMoEExpertsModular):
    def apply(self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, **rest):
        run_cutlass_moe_w4a8_fp8(hidden_states, w1, w2, activation, self.activation_config)
""",
}


def test_upstreams_own_forms_count(plain: Tree) -> None:
    upstream = plain.edited({path: text.encode() for path, text in UPSTREAM.items()})
    assert {effect: missing(effect, upstream) for effect in Effect} == dict.fromkeys(Effect, "")


def test_the_main_models_mapping_counts_for_a_draft_that_shares_it(plain: Tree) -> None:
    upstream = plain.edited({MODEL: UPSTREAM[MODEL].encode()})
    assert missing(Effect.PACKED_MODULES_MAPPING_MTP, upstream) == ""
    of_its_own = changed(upstream, PROPOSER, "backend=None))", "backend=None), quant_config=None)")
    absent = ABSENT[Effect.PACKED_MODULES_MAPPING_MTP]
    assert missing(Effect.PACKED_MODULES_MAPPING_MTP, of_its_own) == absent
    assert missing(Effect.PACKED_MODULES_MAPPING_MTP, plain) == absent


REGISTRIES = {
    "LazyConfigDict(kimi_k2='DeepseekV3Config', **{'deepseek_v41': 'DeepseekV41Config'})": "",
    "LazyConfigDict(deepseek_v4='DeepseekV4Config')": f"{CONFIG}: No such file or directory",
    "LazyConfigDict(kimi_k2='x', **{'deepseek_v4': 'DeepseekV4Config'})": f"{CONFIG}: No such file or directory",
    "load()": f"{CONFIG}: No such file or directory",
}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_vllm_without_a_config_of_its_own_leaves_it_to_transformers(registry: str, plain: Tree) -> None:
    (plain.root / CONFIG).unlink()
    (plain.root / REGISTRY).write_text(f"_CONFIG_REGISTRY: dict[str, type] = {registry}\n")
    assert missing(Effect.HASH_MOE_LAYER_TYPE, plain) == REGISTRIES[registry]


# As it was before 0.23.0, with the lines that the patch needs around its change.
OLD_ATTENTION = """\
class DeepseekV4MultiHeadLatentAttentionWrapper(PluggableLayer):
    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor):
        num_tokens = hidden_states.shape[0]
        o = torch.empty((num_tokens, self.padded_heads, self.head_dim))
        if current_platform.is_rocm():
            return None
        o_fp8, o_scale = fused_inv_rope_fp8_quant(
            o,
            positions,
        )

        wo_a_fp8 = self.wo_a.weight
        wo_a_scale = self.wo_a.weight_scale_inv

        z = torch.empty(
            (num_tokens, self.n_local_groups, self.o_lora_rank),
            device=o.device,
            dtype=torch.bfloat16,
        )
        torch.ops.vllm.deepseek_v4_fp8_einsum(
            o_fp8, o_scale, wo_a_fp8, wo_a_scale, z, "bhr,hdr->bhd", list(self._einsum_recipe)
        )
        return self.wo_b(z.flatten(1))
"""


def test_the_scale_is_proved_where_it_was_before_0_23(plain: Tree) -> None:
    (plain.root / O_PROJ).unlink()
    old = plain.edited({ATTENTION: OLD_ATTENTION.encode()})
    assert missing(Effect.O_PROJ_SCALE_NAME, old) == (
        f"{ATTENTION}: the o projection of a layer with weight_scale: "
        "'ColumnParallelLinear' object has no attribute 'weight_scale_inv'"
    )
    (patch,) = series.load(SERIES, ["0004-o-proj-scale-name"])
    (file,) = patch.layout(Release(0, 22, 1)).files
    new = old.edited({ATTENTION: diff.apply(old.read(ATTENTION), file).data})
    assert missing(Effect.O_PROJ_SCALE_NAME, new) == ""
    assert missing(Effect.O_PROJ_SCALE_NAME, changed(new, ATTENTION, "return self.wo_b(", "return (")) == (
        f"{ATTENTION}: the o projection does not call deepseek_v4_fp8_einsum once and then wo_b"
    )
