"""`python -m gpu.clamp PUBLISHED`: vLLM's CUTLASS W4A8 experts against the reference; prints JSON.

PUBLISHED is cutlass_moe.py without patch 0005; the installed vLLM has it. Both versions' experts get the same weights
and the same inputs, one that stays below the model's swiglu_limit and one that drives gates and ups past it.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import torch
import vllm
from gpu import moe
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig, FusedMoEParallelConfig, RoutingMethodType
from vllm.model_executor.layers.fused_moe.experts import cutlass_moe
from vllm.model_executor.layers.fused_moe.oracle import w4a8
from vllm.v1.worker.workspace import init_workspace_manager

EXPERTS: Final = 256
HIDDEN: Final = 4096
INTERMEDIATES: Final = {"TP1": 2048, "TP2": 1024}
TOKENS: Final = 512
TOPK: Final = 6
LIMIT: Final = 10.0
# A gate's standard deviation is about 1.2 times this.
DRIVES: Final = {"below": 1.0, "past": 8.0}


def main(published: Path) -> None:
    torch.set_float32_matmul_precision("highest")
    init_workspace_manager(torch.device("cuda"))
    variants = {"with": cutlass_moe, "without": _module(published)}
    with torch.inference_mode(), set_current_vllm_config(VllmConfig()):
        rows = [row for tp in INTERMEDIATES for row in _layer(tp, variants)]
    answer = {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(),
        "experts": EXPERTS,
        "hidden": HIDDEN,
        "tokens": TOKENS,
        "topk": TOPK,
        "limit": LIMIT,
        "rows": rows,
    }
    print(json.dumps(answer))


def _layer(tp: str, variants: dict[str, ModuleType]) -> list[dict[str, object]]:
    intermediate = INTERMEDIATES[tp]
    experts = moe.Experts.random(EXPERTS, HIDDEN, intermediate, seed=1, device="cuda")
    # Converting unpacks the weights in place.
    w13, w2, *scales, strides13, strides2 = w4a8.convert_to_w4a8_moe_kernel_format(
        experts.w13.clone(), experts.w2.clone(), experts.w13_scale, experts.w2_scale
    )
    config = _config(intermediate)
    backend, _ = w4a8.select_w4a8_moe_backend(config)
    kernels = {
        name: w4a8.make_w4a8_moe_kernel(
            w4a8.make_w4a8_moe_quant_config(*scales),
            config,
            module.CutlassExpertsW4A8Fp8,
            strides13,
            strides2,
            moe.GROUP,
        )
        for name, module in variants.items()
    }
    rows = []
    for name, drive in DRIVES.items():
        x, weights, chosen = _input(drive)
        outputs = {
            variant: kernel.apply(
                hidden_states=x.clone(),
                w1=w13,
                w2=w2,
                topk_weights=weights,
                topk_ids=chosen.int(),
                activation=MoEActivation.SILU,
                global_num_experts=EXPERTS,
                expert_map=None,
                apply_router_weight_on_input=False,
            )
            # The workspace that holds it is the next call's too.
            .float()
            .clone()
            for variant, kernel in kernels.items()
        }
        same = moe.layer(x, experts, weights, chosen, limit=LIMIT, linear=moe.as_w4a8)
        exact = moe.layer(x, experts, weights, chosen, limit=LIMIT).output
        rows.append(
            {
                "tp": tp,
                "intermediate": intermediate,
                "backend": backend.value,
                "input": name,
                "largest": same.largest,
                "gates_past": same.gates_past,
                "ups_past": same.ups_past,
                "reference_mean_abs": exact.abs().mean().item(),
                "reference_max_abs": exact.abs().max().item(),
                "reference_w4a8": _errors(same.output, exact),
                **{
                    variant: {"w4a8": _errors(output, same.output), "exact": _errors(output, exact)}
                    for variant, output in outputs.items()
                },
                "between": _errors(outputs["without"], outputs["with"]),
            }
        )
    return rows


def _config(intermediate: int) -> FusedMoEConfig:
    return FusedMoEConfig(
        num_experts=EXPERTS,
        experts_per_token=TOPK,
        hidden_dim=HIDDEN,
        intermediate_size_per_partition=intermediate,
        num_local_experts=EXPERTS,
        num_logical_experts=EXPERTS,
        activation=MoEActivation.SILU,
        device="cuda",
        routing_method=RoutingMethodType.DeepseekV4,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=torch.bfloat16,
        max_num_tokens=TOKENS,
        swiglu_limit=LIMIT,
    )


def _input(drive: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, and for each six experts with weights that add up to one."""
    generator = torch.Generator("cuda").manual_seed(2)
    x = torch.randn(TOKENS, HIDDEN, generator=generator, device="cuda") * drive
    logits = torch.rand(TOKENS, EXPERTS, generator=generator, device="cuda")
    weights, chosen = logits.topk(TOPK, dim=-1)
    return x.bfloat16(), weights / weights.sum(-1, keepdim=True), chosen


def _errors(output: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    difference = (output - reference).abs()
    return {
        "max_abs": difference.max().item(),
        "mean_abs": difference.mean().item(),
        "max_relative": (difference.max() / reference.abs().max()).item(),
        "relative": (difference.norm() / reference.norm()).item(),
    }


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cutlass_moe_published", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]))
