"""The groups of a compressed-tensors config: which scheme each target stands for, and what the W4A8 kernel demands."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

_GROUP_SIZE: Final = 128
_MULTIPLE: Final = 256


class Scheme(StrEnum):
    """How a layer's weights are held, and for W4A8 its activations."""

    FP8 = "FP8"
    W4A8 = "INT4, FP8 activations"
    W4A16 = "INT4"
    BF16 = "BF16"
    OTHER = "another scheme"


def targets(quantization: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Target -> its group, in the order in which vLLM tries them."""
    groups = quantization.get("config_groups") or {}
    return {target: group for group in groups.values() for target in group.get("targets", ())}


def scheme_of(group: Mapping[str, Any] | None) -> Scheme:
    if group is None:
        return Scheme.BF16
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    kind = (weights.get("num_bits"), weights.get("type"))
    if kind == (8, "float"):
        return Scheme.FP8
    if kind == (4, "int"):
        return Scheme.W4A8 if inputs else Scheme.W4A16
    return Scheme.OTHER


def w4a8_problems(group: Mapping[str, Any], config: Mapping[str, Any], ranks: int) -> Iterator[str]:
    """What of a W4A8 group vLLM's CUTLASS kernel refuses with this many ranks.

    Source: vllm's compressed_tensors.py `_is_fp8_w4a8` and compressed_tensors_moe_w4a8_fp8.py, alike from 0.22 to 0.33.
    """
    weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
    yield from _unlike("weights", weights, {"strategy": ("group",), "symmetric": (True,), "dynamic": (False,)})
    yield from _unlike("weights", weights, {"group_size": (_GROUP_SIZE,), "actorder": (None, "static", "weight")})
    wanted = {"num_bits": (8,), "strategy": ("token",), "symmetric": (True,), "dynamic": (True,)}
    yield from _unlike("input_activations", inputs, wanted)
    hidden, intermediate = int(config["hidden_size"]), int(config["moe_intermediate_size"])
    if hidden % _MULTIPLE:
        yield f"hidden_size {hidden} is no multiple of {_MULTIPLE}"
    if intermediate % ranks or intermediate // ranks % _MULTIPLE:
        yield f"moe_intermediate_size {intermediate} on {ranks} ranks is no multiple of {_MULTIPLE} each"


def _unlike(part: str, found: Mapping[str, Any], wanted: Mapping[str, Sequence[object]]) -> Iterator[str]:
    for key, allowed in wanted.items():
        if found.get(key) not in allowed:
            yield f"experts' {part}.{key} is {found.get(key)!r}, not {' or '.join(map(repr, allowed))}"
