"""Proof that the CUTLASS W4A8 experts clamp their SwiGLU at the model's swiglu_limit."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching import standins
from dsv4_stack.guest.patching.standins import Call, Calls, Namespace, Tensor, Unset
from dsv4_stack.guest.patching.tree import Tree

MOE: Final = "vllm/model_executor/layers/fused_moe"
ACTIVATION: Final = f"{MOE}/activation.py"
BASE: Final = f"{MOE}/modular_kernel.py"
EXPERTS: Final = f"{MOE}/experts/cutlass_moe.py"
LIMIT: Final = 10.0

_MATMUL: Final = "cutlass_w4a8_moe_mm"
_QUANT: Final = "scaled_fp8_quant"
_FORMATS: Final = SimpleNamespace(Standard="standard", BatchedExperts="batched")
# tokens, experts per token, experts, hidden and intermediate size: enough for shapes to be told apart
_M, _TOPK, _E, _K, _N = 4, 2, 8, 256, 128

# activation, swiglu_limit -> the kernel, and what it gets beside output and input. alpha and beta came in 0.24.
CASES: Final[tuple[tuple[str, float | None, str, set[tuple[float, ...]]], ...]] = (
    ("SILU", LIMIT, "silu_and_mul_with_clamp", {(LIMIT,), (LIMIT, 1.0, 0.0)}),
    ("SILU", None, "silu_and_mul", {()}),
    ("GELU", LIMIT, "gelu_and_mul", {()}),
)


def prove_clamp(tree: Tree) -> None:
    """Runs the experts between stand-ins of the kernels, with and without a limit. Raises PatchError."""
    kernels = Calls(moe_permute=tuple(Tensor(_M) for _ in range(5)), scaled_fp8_quant=(Tensor(_M), Tensor(_M)))
    activation = _activation_module(tree, kernels)
    init, apply = _init(tree, activation), _apply(tree, activation, kernels)
    for name, limit, kernel, rests in CASES:
        kernels.seen.clear()
        apply(_experts(init, limit), **_arguments(activation["MoEActivation"][name]))
        try:
            _check_between_matmuls(kernels.seen, kernel, rests)
        except PatchError as error:
            raise PatchError(f"{EXPERTS}: {name} with swiglu_limit {limit}: {error.message}") from None


def _check_between_matmuls(seen: list[Call], kernel: str, rests: set[tuple[float, ...]]) -> None:
    """The kernel alone reads what the first matmul wrote, and writes what is quantized for the second."""
    matmuls = [index for index, (name, _, _) in enumerate(seen) if name == _MATMUL]
    if len(matmuls) != 2:
        raise PatchError(f"{_MATMUL} should run twice, but runs {len(matmuls)}x")
    (_, first, _), *between, _ = seen[matmuls[0] : matmuls[1] + 1]
    names = [name for name, _, _ in between]
    if names != [kernel, _QUANT]:
        raise PatchError(f"{kernel} and {_QUANT} should run between the matmuls, not {', '.join(names)}")
    (_, (output, source, *rest), _), (_, quantized, _) = between
    if output is not quantized[0] or source is not first[0]:
        raise PatchError(f"{kernel} does not go from the first matmul's output to what is quantized")
    if tuple(rest) not in rests:
        raise PatchError(f"{kernel} gets {rest} beside output and input")


def _activation_module(tree: Tree, kernels: Calls) -> Namespace:
    torch = standins.torch(kernels)
    vllm = SimpleNamespace(current_platform=SimpleNamespace(is_xpu=lambda: False, is_cuda=lambda: True))
    imports = {"torch": torch, "torch.nn.functional": torch.nn.functional, "vllm": vllm, "vllm.platforms": vllm}
    return standins.run_module(tree, ACTIVATION, imports)


def _apply(tree: Tree, activation: Namespace, kernels: Calls) -> Callable[..., None]:
    namespace = {
        "torch": standins.torch(kernels),
        "ops": kernels,
        "mk": SimpleNamespace(FusedMoEActivationFormat=_FORMATS),
        "MoEActivation": activation["MoEActivation"],
        "apply_moe_activation": activation["apply_moe_activation"],
        "moe_permute": kernels.moe_permute,
        "moe_unpermute": kernels.moe_unpermute,
        "_resize_cache": lambda _, shape: Tensor(*shape),
    }
    standins.run_definitions(tree, EXPERTS, ["run_cutlass_moe_w4a8_fp8"], namespace)
    return standins.method(tree, EXPERTS, "CutlassExpertsW4A8Fp8", "apply", namespace)


def _init(tree: Tree, activation: Namespace) -> Callable[..., None]:
    namespace = {"FusedMoEActivationFormat": _FORMATS, **activation}
    return standins.method(tree, BASE, "FusedMoEExperts", "__init__", namespace)


def _experts(init: Callable[..., None], limit: float | None) -> object:
    """Made as the base class of all experts makes them, for a layer whose only setting is the limit."""

    class Experts(Unset):
        def activation_format(self) -> object:
            return _FORMATS.Standard

        def _get_permute_scratch(self) -> None:
            return None

    experts = Experts()
    init(experts, moe_config=Unset(swiglu_limit=limit), quant_config=Unset())
    return experts


def _arguments(activation: object) -> dict[str, object]:
    """Of one call of `apply`; the weights are packed, eight int4 in an int32."""
    return {
        "output": Tensor(_M, _K),
        "hidden_states": Tensor(_M, _K),
        "w1": Tensor(_E, 2 * _N, _K // 8, dtype="int32"),
        "w2": Tensor(_E, _K, _N // 8, dtype="int32"),
        "topk_weights": Tensor(_M, _TOPK),
        "topk_ids": Tensor(_M, _TOPK),
        "activation": activation,
        "global_num_experts": _E,
        "expert_map": None,
        "a1q_scale": Tensor(_M),
        "a2_scale": None,
        "workspace13": Tensor(_M * _TOPK, 2 * _N),
        "workspace2": Tensor(_M * _TOPK, _K),
        "expert_tokens_meta": None,
        "apply_router_weight_on_input": False,
    }
