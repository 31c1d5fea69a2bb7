"""What an overlay's config.json may change, declared once for each kind of checkpoint."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dsv4_stack.errors import ConfigError

Config = dict[str, Any]

FP8_PER_TOKEN: Final[Config] = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True, "symmetric": True}
"""The experts' activations of the scheme that compressed-tensors calls W4AFP8."""

_DEMO_CONTEXT: Final = 512
_ROUTED_EXPERTS: Final = re.compile(r"(?<!shared_)experts")
_TAKE_ANOTHER: Final = "give the config.json of the W4A16 checkpoint, or materialize with --config base"


class CheckpointKind(StrEnum):
    """Checkpoints whose config.json can be converted."""

    W4A8 = "w4a8"
    DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """`edit` returns a changed copy, `provenance` is the top-level key that records it. `edit` raises ConfigError."""

    kind: CheckpointKind
    provenance: str
    applies: Callable[[Config], bool]
    edit: Callable[[Config], Config]

    def convert(self, config: Config) -> Config:
        """The edited copy, with what was changed written into its last key. Raises ConfigError."""
        if self.provenance in config:
            raise ConfigError(f"the config is converted already: it has {self.provenance}", _TAKE_ANOTHER)
        return self.edit(config)


def conversion_of(config: Config) -> Conversion:
    """The conversion that this config is made for, found by its content. Raises ConfigError."""
    for conversion in CONVERSIONS.values():
        if conversion.applies(config):
            return conversion
    raise ConfigError(
        "the config has no int4 experts group: none of quantization_config.config_groups has weights of 4 bits, "
        'type "int", strategy "group" and a target that names experts',
        _TAKE_ANOTHER,
    )


def _int4_experts(config: Config) -> list[str]:
    quantization = config.get("quantization_config")
    groups = quantization.get("config_groups") if isinstance(quantization, dict) else None
    if not isinstance(groups, dict):
        return []
    return [name for name, group in groups.items() if isinstance(group, dict) and _is_int4_experts(group)]


def _is_int4_experts(group: Config) -> bool:
    weights, targets = group.get("weights"), group.get("targets")
    if not isinstance(weights, dict) or not isinstance(targets, list):
        return False
    int4 = (weights.get("num_bits"), weights.get("type"), weights.get("strategy")) == (4, "int", "group")
    return int4 and any(isinstance(target, str) and _ROUTED_EXPERTS.search(target) for target in targets)


def _w4a8(config: Config) -> Config:
    names = _int4_experts(config)
    if len(names) > 1:
        raise ConfigError(f"the config has several int4 experts groups: {', '.join(names)}", _TAKE_ANOTHER)
    path = f"quantization_config.config_groups.{names[0]}.input_activations"
    converted = copy.deepcopy(config)
    group = converted["quantization_config"]["config_groups"][names[0]]
    before = group.get("input_activations")
    if before == FP8_PER_TOKEN:
        raise ConfigError(f"the config is converted already: {path} is FP8 per token", _TAKE_ANOTHER)
    if before is not None:
        raise ConfigError(f"{path} should be null, not {json.dumps(before)}", _TAKE_ANOTHER)
    group["input_activations"] = dict(FP8_PER_TOKEN)
    return converted | {"_w4a8_conversion": _provenance(path, before, FP8_PER_TOKEN)}


def _is_demo(config: Config) -> bool:
    return config.get("model_type") == "qwen2" and config.get("dsv4_demo") is True


def _demo(config: Config) -> Config:
    path = "max_position_embeddings"
    before = config.get(path)
    if before != 256:
        raise ConfigError(
            f"{path} should be 256, not {json.dumps(before)}", "give the config.json of demo/tiny-counter"
        )
    return config | {path: _DEMO_CONTEXT, "_demo_conversion": _provenance(path, before, _DEMO_CONTEXT)}


def _provenance(path: str, before: object, after: object) -> Config:
    """The same on every run and by every release, so that converting again gives the same bytes."""
    return {"tool": "dsv4-stack", "changed": path, "from": before, "to": after}


CONVERSIONS: Final = {
    conversion.kind: conversion
    for conversion in (
        Conversion(
            kind=CheckpointKind.W4A8,
            provenance="_w4a8_conversion",
            applies=lambda config: bool(_int4_experts(config)),
            edit=_w4a8,
        ),
        Conversion(kind=CheckpointKind.DEMO, provenance="_demo_conversion", applies=_is_demo, edit=_demo),
    )
}
