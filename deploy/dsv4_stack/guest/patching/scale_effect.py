"""Proof that the o projection reads the block scale of wo_a under either name."""

from types import SimpleNamespace
from typing import Any, Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching import standins
from dsv4_stack.guest.patching.standins import Calls, Tensor
from dsv4_stack.guest.patching.tree import Tree

O_PROJ: Final = "vllm/models/deepseek_v4/nvidia/ops/o_proj.py"
FUNCTION: Final = "deep_gemm_fp8_o_proj"
# Where the projection was before 0.23.0: in the attention itself.
ATTENTION: Final = "vllm/models/deepseek_v4/attention.py"
ATTENTION_CLASS: Final = "DeepseekV4MultiHeadLatentAttentionWrapper"


class ColumnParallelLinear:
    """wo_a, quantized to FP8, with the scales that a loader gave it."""

    def __init__(self, **scales: Tensor) -> None:
        self.weight = Tensor(8, 1024, 4096, dtype="float8_e4m3fn")
        self.__dict__.update(scales)


def prove_scale_name(tree: Tree) -> None:
    """Runs the projection on layers with each name and with both. Raises PatchError."""
    ours, theirs = Tensor(8, 8, 32, dtype="float32"), Tensor(8, 8, 32, dtype="float32")
    for scales, expected in (
        ({"weight_scale": ours}, ours),
        ({"weight_scale_inv": theirs}, theirs),
        ({"weight_scale": ours, "weight_scale_inv": theirs}, ours),
    ):
        layer = ColumnParallelLinear(**scales)
        names = " and ".join(scales)
        place, operand = (ATTENTION, _of_attention) if _before_o_proj(tree) else (O_PROJ, _of_o_proj)
        try:
            used = operand(tree, layer)
        except AttributeError as error:
            raise PatchError(f"{place}: the o projection of a layer with {names}: {error}") from None
        if used != (layer.weight, expected):
            raise PatchError(f"{place}: the o projection of a layer with {names} multiplies with another scale")


def _before_o_proj(tree: Tree) -> bool:
    return tree.has(ATTENTION) and not tree.has(O_PROJ)


def _of_o_proj(tree: Tree, layer: ColumnParallelLinear) -> tuple[Any, ...]:
    """Weight and scale as fp8_einsum gets them."""
    calls = Calls(fused_inv_rope_fp8_quant=(Tensor(4, 8, 4096, dtype="float8_e4m3fn"), Tensor(4, 8, 32)))
    namespace = {
        "torch": standins.torch(calls),
        "fused_inv_rope_fp8_quant": calls.fused_inv_rope_fp8_quant,
        "fp8_einsum": calls.fp8_einsum,
        # Where upstream has it, an `o` that the attention kernel already quantized; ours is not.
        "QuantizedActivation": type("QuantizedActivation", (), {}),
    }
    project = standins.run_definitions(tree, O_PROJ, [FUNCTION], namespace)[FUNCTION]
    project(
        Tensor(4, 64, 512),
        Tensor(4),
        Tensor(4096, 64),
        layer,
        calls.wo_b,
        n_groups=8,
        heads_per_group=8,
        nope_dim=448,
        rope_dim=64,
        o_lora_rank=1024,
        einsum_recipe=(1, 128, 128),
        tma_aligned_scales=False,
    )
    operand: tuple[Any, ...] = _only_product(O_PROJ, calls, "fp8_einsum")[2]
    return operand


def _of_attention(tree: Tree, layer: ColumnParallelLinear) -> tuple[Any, ...]:
    """The same, of the attention's own forward."""
    calls = Calls(fused_inv_rope_fp8_quant=(Tensor(4, 8, 4096, dtype="float8_e4m3fn"), Tensor(4, 8, 32)))
    torch = standins.torch(calls)
    torch.ops.vllm = calls
    namespace = {
        "torch": torch,
        "current_platform": SimpleNamespace(is_rocm=lambda: False),
        "fused_inv_rope_fp8_quant": calls.fused_inv_rope_fp8_quant,
    }
    forward = standins.method(tree, ATTENTION, ATTENTION_CLASS, "forward", namespace)
    attention = SimpleNamespace(
        padded_heads=64,
        head_dim=512,
        n_local_heads=64,
        n_local_groups=8,
        nope_head_dim=448,
        rope_head_dim=64,
        o_lora_rank=1024,
        layer_name="model.layers.0.attn",
        rotary_emb=SimpleNamespace(cos_sin_cache=Tensor(4096, 64)),
        _tma_aligned_scales=False,
        _einsum_recipe=(1, 128, 128),
        wo_a=layer,
        wo_b=calls.wo_b,
    )
    forward(attention, Tensor(4), Tensor(4, 4096))
    _, _, weight, scale, *_ = _only_product(ATTENTION, calls, "deepseek_v4_fp8_einsum")
    return weight, scale


def _only_product(place: str, calls: Calls, einsum: str) -> tuple[Any, ...]:
    """The arguments of the one product that stands before wo_b."""
    products = [args for name, args, _ in calls.seen if name == einsum]
    if len(products) != 1 or calls.seen[-1][0] != "wo_b":
        raise PatchError(f"{place}: the o projection does not call {einsum} once and then wo_b")
    return products[0]
