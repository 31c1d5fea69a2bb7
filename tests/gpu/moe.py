"""One routed-experts layer in plain torch: what the model defines, and what W4A8 arithmetic can make of it.

INT4 weights are as the checkpoint holds them: eight to an int32, lowest first, each with 8 added; one BF16 scale for
128 of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

GROUP: Final = 128
FP8: Final = torch.float8_e4m3fn
FP8_MAX: Final = 448.0
# vLLM's scale of a token whose values are all zero: https://github.com/vllm-project/vllm, input_quant_fp8.py
_LEAST_SCALE: Final = 1 / (FP8_MAX * 512)

Linear = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(input [rows, in], packed weights [out, in / 8], scales [out, in / 128]) -> [rows, out], float32."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """`w13` are the gates' rows and below them the ups': [experts, 2 * intermediate, hidden / 8]; `w2` leads back."""

    w13: Tensor
    w13_scale: Tensor
    w2: Tensor
    w2_scale: Tensor

    @classmethod
    def random(cls, experts: int, hidden: int, intermediate: int, *, seed: int, device: str) -> "Experts":
        """Every INT4 is equally likely; scales of 0.002 to 0.006 make a weight's standard deviation 0.019."""
        generator = torch.Generator(device).manual_seed(seed)

        def packed(rows: int, columns: int) -> Tensor:
            shape = (experts, rows, columns // 8)
            return torch.randint(-(2**31), 2**31, shape, generator=generator, device=device, dtype=torch.int32)

        def scale(rows: int, columns: int) -> Tensor:
            values = torch.rand(experts, rows, columns // GROUP, generator=generator, device=device)
            return (values * 0.004 + 0.002).bfloat16()

        w13, w2 = (2 * intermediate, hidden), (hidden, intermediate)
        return cls(w13=packed(*w13), w13_scale=scale(*w13), w2=packed(*w2), w2_scale=scale(*w2))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`output` is [tokens, hidden]; the rest says what the clamp met."""

    output: Tensor
    largest: float
    gates_past: float
    ups_past: float


def as_defined(x: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    """Unrounded: only the weights are quantized."""
    return x @ (unpacked(packed) * _spread(scale.float())).T


def as_w4a8(x: Tensor, packed: Tensor, scale: Tensor) -> Tensor:
    """As CUTLASS W4A8 calculates: FP8 tokens, FP8 products of INT4 and group scale, BF16 results."""
    tokens, token_scale = per_row_fp8(x)
    groups, channel = per_row_fp8(scale)
    # An eighth, so that eight times a scale still is an FP8 number.
    weights = _rounded(unpacked(packed) * _spread(_rounded(groups / 8)))
    return _to_bf16((tokens @ weights.T) * token_scale * (channel * 8).T)


def layer(
    x: Tensor, experts: Experts, weights: Tensor, chosen: Tensor, *, limit: float | None, linear: Linear = as_defined
) -> Answer:
    """Sum over each token's experts. `weights` and `chosen` are [tokens, k]; `limit` is the model's swiglu_limit."""
    rounded = _to_bf16 if linear is as_w4a8 else Tensor.float
    output = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    largest, past, values = 0.0, torch.zeros(2, dtype=torch.float64), 0
    for expert in range(experts.w13.shape[0]):
        token, slot = (chosen == expert).nonzero(as_tuple=True)
        if not len(token):
            continue
        both = linear(x[token].float(), experts.w13[expert], experts.w13_scale[expert])
        gate, up = both.chunk(2, dim=-1)
        inner = rounded(swiglu(gate, up, limit))
        part = linear(inner, experts.w2[expert], experts.w2_scale[expert])
        output.index_add_(0, token, part * weights[token, slot, None].float())
        if limit is not None:
            largest = max(largest, both.abs().max().item())
            past += torch.stack([(gate > limit).sum(), (up.abs() > limit).sum()]).cpu()
            values += gate.numel()
    shares = (past / max(values, 1)).tolist()
    return Answer(output=output, largest=largest, gates_past=shares[0], ups_past=shares[1])


def swiglu(gate: Tensor, up: Tensor, limit: float | None) -> Tensor:
    """silu(gate) * up; with a limit the gate is clamped from above, the up from both sides."""
    if limit is not None:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return torch.nn.functional.silu(gate) * up


def unpacked(packed: Tensor) -> Tensor:
    """[rows, n / 8] int32 -> [rows, n] float32 from -8 to 7."""
    shifts = torch.arange(0, 32, 4, device=packed.device, dtype=torch.int32)
    return (((packed[..., None] >> shifts) & 0xF) - 8).flatten(-2).float()


def per_row_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every row as FP8 numbers (in float32) and its scale [rows, 1]."""
    x = x.float()
    scale = (x.abs().amax(-1, keepdim=True) / FP8_MAX).clamp(min=_LEAST_SCALE)
    return _rounded((x / scale).clamp(-FP8_MAX, FP8_MAX)), scale


def _rounded(x: Tensor) -> Tensor:
    return x.to(FP8).float()


def _to_bf16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def _spread(scale: Tensor) -> Tensor:
    return scale.repeat_interleave(GROUP, dim=-1)
