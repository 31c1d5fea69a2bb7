"""The quantizable layers of DeepSeek-V4: vLLM's name of each, and the names of its parts in the checkpoint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dsv4_stack.guest.patching.releases import Release

FUSED: Final = {
    "fused_wqa_wkv": ["wq_a", "wkv"],
    "fused_wkv_wgate": ["wkv", "wgate"],
    "gate_up_proj": ["w1", "w3"],
}
"""`packed_modules_mapping`, upstream's since 0.29.0 and our patch's before."""

_EXPERTS_BY_CHECKPOINT_NAME: Final = Release(0, 32, 0)
_MTP_PROJECTIONS_NAMED: Final = Release(0, 24, 0)

# What vLLM quantizes by name; the compressor, the indexer's weights_proj and the gate it never does.
_ATTENTION: Final = {
    "attn.fused_wqa_wkv": ("MergedColumnParallelLinear", ("attn.wq_a", "attn.wkv")),
    "attn.wq_b": ("ColumnParallelLinear", ("attn.wq_b",)),
    "attn.wo_a": ("ColumnParallelLinear", ("attn.wo_a",)),
    "attn.wo_b": ("RowParallelLinear", ("attn.wo_b",)),
}
_INDEXER: Final = {"attn.indexer.wq_b": ("ReplicatedLinear", ("attn.indexer.wq_b",))}
_SHARED: Final = {
    "ffn.shared_experts.gate_up_proj": (
        "MergedColumnParallelLinear",
        ("ffn.shared_experts.w1", "ffn.shared_experts.w3"),
    ),
    "ffn.shared_experts.down_proj": ("RowParallelLinear", ("ffn.shared_experts.w2",)),
}
_EXPERT: Final = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """`name` is vLLM's, `parts` the checkpoint's; `kind` is the name without the layer's number; `draft` is of MTP."""

    kind: str
    name: str
    class_name: str
    parts: tuple[str, ...]
    draft: bool


def layers(config: Mapping[str, Any], release: Release) -> Iterator[Layer]:
    """Those of the model, then those of its MTP draft."""
    count = int(config["num_hidden_layers"])
    ratios = config.get("compress_ratios") or [0] * count
    for number in range(count):
        prefix = f"layers.{number}"
        yield from _block(f"model.{prefix}", prefix, "", release, indexed=ratios[number] == 4)
    for number in range(int(config.get("num_nextn_predict_layers") or 0)):
        prefix, stored = f"model.layers.{count + number}", f"mtp.{number}"
        yield from _block(f"{prefix}.mtp_block", stored, "mtp_block.", release, indexed=False)
        for name in ("e_proj", "h_proj"):
            yield Layer(
                kind=f"mtp.{name}",
                name=f"{prefix}.{name}" if release >= _MTP_PROJECTIONS_NAMED else "",
                class_name="ReplicatedLinear",
                parts=(f"{stored}.{name}",),
                draft=True,
            )


def _block(prefix: str, stored: str, kind: str, release: Release, *, indexed: bool) -> Iterator[Layer]:
    plain = {**_ATTENTION, **(_INDEXER if indexed else {}), **_SHARED}
    for name, (class_name, parts) in plain.items():
        yield Layer(
            kind=f"{kind}{name}",
            name=f"{prefix}.{name}",
            class_name=class_name,
            parts=tuple(f"{stored}.{part}" for part in parts),
            draft=bool(kind),
        )
    for own, common in _EXPERT.items():
        name = own if release >= _EXPERTS_BY_CHECKPOINT_NAME else common
        yield Layer(
            kind=f"{kind}ffn.experts",
            name=f"{prefix}.ffn.experts.0.{name}",
            class_name="RoutedExperts",
            parts=(f"{stored}.ffn.experts.0.{own}",),
            draft=bool(kind),
        )
