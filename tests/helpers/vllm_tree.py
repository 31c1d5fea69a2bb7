"""A vLLM tree in small: written for the tests, with the lines that the patch series needs around its changes."""

from pathlib import Path

from dsv4_stack.guest.patching.clamp_effect import ACTIVATION, BASE, EXPERTS
from dsv4_stack.guest.patching.layer_type_effect import CONFIG
from dsv4_stack.guest.patching.mapping_effect import MODEL, MTP, PROPOSER
from dsv4_stack.guest.patching.scale_effect import O_PROJ

SERIES = Path(__file__).parents[2] / "docker" / "serve" / "patches"

FILES = {
    "vllm/__init__.py": "raise RuntimeError('nothing should import this package')\n",
    "vllm/_version.py": "__version__ = version = '0.23.0'\n__commit_id__ = commit_id = 'g0fc695fc6'\n",
    PROPOSER: """\
class SpecDecodeBaseProposer:
    def _create_draft_vllm_config(self) -> VllmConfig:
        base = self.vllm_config
        if self.speculative_config.moe_backend is not None:
            base = replace(base, kernel_config=replace(base.kernel_config, moe_backend="other"))
        return replace(base, attention_config=replace(base.attention_config, backend=None))
""",
    MODEL: """\
class DeepseekV4ForCausalLM(nn.Module, SupportsPP):
    # Overridden per-instance in __init__ when expert_dtype != "fp4".
    hf_to_vllm_mapper = _make_deepseek_v4_weights_mapper("fp4")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()

        self.config = vllm_config.model_config.hf_config
""",
    MTP: """\
def compute_logits():
    return None


class DeepSeekV4MTP(nn.Module):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        self.config = vllm_config.model_config.hf_config
""",
    CONFIG: """\
from transformers import PretrainedConfig


class DeepseekV4Config(PretrainedConfig):
    def __init__(self, rope_theta: float = 10000.0, **kwargs):
        self.rope_theta = rope_theta
        super().__init__(**kwargs)
""",
    O_PROJ: """\
def deep_gemm_fp8_o_proj(
    o: torch.Tensor, positions, cos_sin_cache, wo_a, wo_b, *, n_groups, o_lora_rank, einsum_recipe, **rest
):
    o_fp8, o_scale = fused_inv_rope_fp8_quant(o, positions, cos_sin_cache)
    z = torch.empty(
        (o.shape[0], n_groups, o_lora_rank),
        device=o.device,
        dtype=torch.bfloat16,
    )
    fp8_einsum(
        "bhr,hdr->bhd",
        (o_fp8, o_scale),
        (wo_a.weight, wo_a.weight_scale_inv),
        z,
        recipe=einsum_recipe,
    )
    return wo_b(z.flatten(1))
""",
    ACTIVATION: """\
from enum import Enum

import torch
import torch.nn.functional as F

from vllm.platforms import current_platform


class MoEActivation(Enum):
    SILU = "silu"
    GELU = "gelu"


def apply_moe_activation(activation: MoEActivation, output: torch.Tensor, input: torch.Tensor):
    assert output.size(-1) * 2 == input.size(-1)
    if activation == MoEActivation.SILU:
        torch.ops._C.silu_and_mul(output, input)
    else:
        torch.ops._C.gelu_and_mul(output, input)
""",
    BASE: """\
class FusedMoEExperts:
    def __init__(self, moe_config: FusedMoEConfig, quant_config: FusedMoEQuantConfig, max_num_tokens=None):
        if self.activation_format() == FusedMoEActivationFormat.BatchedExperts and max_num_tokens is None:
            raise ValueError("max_num_tokens must be set")
        self.moe_config = moe_config
        self.quant_config = quant_config
""",
    EXPERTS: """\
def run_cutlass_moe_w4a8_fp8(
    output: torch.Tensor,
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    activation: MoEActivation,
    workspace13: torch.Tensor,
    workspace2: torch.Tensor,
    topk_weights: torch.Tensor | None,
    group_size: int,
    permute_scratch: MoEPermuteScratch | None,
):
    a1q = hidden_states
    M = a1q.size(0)
    local_E = w1.size(0)
    _, K, N_packed = w2.shape
    N = N_packed * 8
    s_strides1, s_strides2 = local_E, local_E
    a2_scale, per_act_token = None, True
    assert topk_weights.size(0) == M + 1, "asserts have no part in the proof"
    mm1_out = _resize_cache(workspace13, (M, N * 2))
    act_out = _resize_cache(workspace2, (M, N))
    quant_out = _resize_cache(workspace13.view(dtype=torch.float8_e4m3fn), (M, N))
    mm2_out = _resize_cache(workspace2, (M, K))

    ops.cutlass_w4a8_moe_mm(
        mm1_out,
        a1q,
        w1,
        s_strides1,
    )

    apply_moe_activation(activation, act_out, mm1_out)

    a2q, a2q_scale = ops.scaled_fp8_quant(
        act_out, a2_scale, use_per_token_if_dynamic=per_act_token, output=quant_out
    )

    ops.cutlass_w4a8_moe_mm(
        mm2_out,
        a2q,
        w2,
        s_strides2,
    )


class CutlassExpertsW4A8Fp8(mk.FusedMoEExpertsModular):
    def apply(self, output, hidden_states, w1, w2, topk_weights, activation, workspace13, workspace2, **rest):
        run_cutlass_moe_w4a8_fp8(
            output,
            hidden_states,
            w1,
            w2,
            activation,
            workspace13,
            workspace2,
            topk_weights,
            self.group_size,
            self._get_permute_scratch(),
        )
""",
}


def write_tree(root: Path, files: dict[str, str] | None = None) -> Path:
    """Write FILES, or these, below `root`; returns it."""
    for path, text in (FILES if files is None else files).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


def bytes_of(root: Path) -> dict[str, bytes]:
    """Every file below `root` by its relative path."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
