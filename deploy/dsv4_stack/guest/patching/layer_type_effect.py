"""Proof that a DeepSeek-V4 config with "hash_moe" and "moe" layers is accepted, whatever Transformers is there."""

import ast
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching import standins
from dsv4_stack.guest.patching.standins import assigned
from dsv4_stack.guest.patching.tree import Tree

CONFIG: Final = "vllm/transformers_utils/configs/deepseek_v4.py"
REGISTRY: Final = "vllm/transformers_utils/config.py"
MODEL_TYPE: Final = "deepseek_v4"
WANTED: Final = ("hash_moe", "moe")
Lists = Mapping[str, tuple[str, ...]]

_ATTENTION: Final = ("sliding_attention", "compressed_sparse_attention", "sparse", "dense")

# The allow-lists as Transformers has had them, and the one that `mlp_layer_types` is held against:
# https://github.com/huggingface/transformers/blob/main/src/transformers/configuration_utils.py, validate_layer_type
SHAPES: Final[Mapping[str, tuple[Lists, str | None]]] = {
    "5.8": ({"ALLOWED_LAYER_TYPES": (*_ATTENTION, "moe")}, None),
    "5.12": ({"ALLOWED_LAYER_TYPES": (*_ATTENTION, "moe")}, "ALLOWED_LAYER_TYPES"),
    "5.15": (
        {"ALLOWED_LAYER_TYPES": (*_ATTENTION, "moe"), "ALLOWED_MLP_LAYER_TYPES": ("sparse", "dense")},
        "ALLOWED_MLP_LAYER_TYPES",
    ),
}


def prove_layer_types(tree: Tree) -> None:
    """Runs the config module twice against each shape of Transformers. Raises PatchError.

    A vLLM without a config class of its own takes that of Transformers, whose validator knows these layers (5.8.0).
    """
    if tree.has(REGISTRY) and not tree.has(CONFIG) and _left_to_transformers(tree):
        return
    for version, (lists, used) in SHAPES.items():
        transformers = _transformers(lists, used)
        for _ in range(2):
            namespace = standins.run_module(tree, CONFIG, transformers)
        config = namespace["DeepseekV4Config"]
        try:
            config(layer_types=["sliding_attention"], mlp_layer_types=list(WANTED))
        except ValueError as error:
            raise PatchError(f"{CONFIG}: with Transformers {version}: {error}") from None
        _check_lists(version, lists, vars(transformers["transformers.configuration_utils"]))
        if used and _accepts_anything(config):
            raise PatchError(f"{CONFIG}: with Transformers {version}: any layer type is accepted")


def _left_to_transformers(tree: Tree) -> bool:
    """Whether vLLM's registry of its own config classes is there, without this model."""
    values = [
        node.value
        for node in tree.module(REGISTRY).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "_CONFIG_REGISTRY" in assigned(node)
    ]
    names = {word.arg for value in values if isinstance(value, ast.Call) for word in value.keywords if word.arg}
    return bool(names) and MODEL_TYPE not in names and not _mentions(values, MODEL_TYPE)


def _mentions(values: list[ast.expr | None], text: str) -> bool:
    nodes = (node for value in values if value for node in ast.walk(value))
    return any(isinstance(node, ast.Constant) and node.value == text for node in nodes)


def _transformers(lists: Lists, used: str | None) -> dict[str, SimpleNamespace]:
    """Stand-ins for the package and its configuration_utils; only the check of layer types is real."""
    utils = SimpleNamespace(**lists)

    class Config:
        def __init__(self, layer_types: list[str], mlp_layer_types: list[str]) -> None:
            self.validate_layer_type(layer_types, mlp_layer_types)

        def validate_layer_type(self, layer_types: list[str], mlp_layer_types: list[str]) -> None:
            _check("layer_types", layer_types, utils.ALLOWED_LAYER_TYPES)
            if used:
                _check("mlp_layer_types", mlp_layer_types, getattr(utils, used))

    utils.PretrainedConfig = utils.PreTrainedConfig = Config
    package = SimpleNamespace(configuration_utils=utils, PretrainedConfig=Config, PreTrainedConfig=Config)
    return {"transformers": package, "transformers.configuration_utils": utils}


def _check(key: str, values: list[str], allowed: tuple[str, ...]) -> None:
    if not set(values) <= set(allowed):
        raise ValueError(f"the `{key}` entries must be in {allowed} but got {values}")


def _check_lists(version: str, before: Lists, after: Mapping[str, object]) -> None:
    """Tuples still, what was allowed still first, and nothing twice; the names wanted where the lists were extended."""
    for name, old in before.items():
        new = after[name]
        expected = (*old, *(value for value in WANTED if value not in old))
        if new not in {old, expected}:
            raise PatchError(f"{CONFIG}: with Transformers {version}, loaded twice: {name} is {new}, not {expected}")


def _accepts_anything(config: type) -> bool:
    try:
        config(layer_types=["sliding_attention"], mlp_layer_types=["no_such_layer"])
    except ValueError:
        return False
    return True
