"""Which experts the tokens of a prompt go to, as vLLM's routers choose them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def watch(model: "Module") -> "list[Tensor]":
    """For every layer the tokens that each of its experts gets from now on."""
    import torch
    from vllm.model_executor.layers.fused_moe.layer import FusedMoE

    counts = []
    for layer in model.modules():
        if isinstance(layer, FusedMoE):
            counts.append(torch.zeros(layer.global_num_experts, dtype=torch.int64, device="cuda"))
            layer.router.set_capture_fn(partial(_count, counts[-1]))
    return counts


def _count(counts: "Tensor", chosen: "Tensor") -> None:
    counts.add_(chosen.flatten().long().bincount(minlength=len(counts)))


def spread(counts: Sequence[int], tokens: int) -> dict[str, float]:
    """How many experts have any token, and the part of the tokens that the busiest has."""
    return {"used": sum(count > 0 for count in counts), "busiest": max(counts) / tokens}
