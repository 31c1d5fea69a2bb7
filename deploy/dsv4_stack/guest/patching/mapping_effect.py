"""Proof that a model class tells compressed-tensors what its fused layers are made of."""

import ast
from typing import Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching import standins
from dsv4_stack.guest.patching.standins import Unset, assigned, definition
from dsv4_stack.guest.patching.tree import Tree

MODEL: Final = "vllm/models/deepseek_v4/nvidia/model.py"
PROPOSER: Final = "vllm/v1/spec_decode/llm_base_proposer.py"
MTP: Final = "vllm/models/deepseek_v4/nvidia/mtp.py"
ATTRIBUTE: Final = "packed_modules_mapping"
# The checkpoint's own names; vLLM fuses them when it loads.
MAPPING: Final = {
    "fused_wqa_wkv": ["wq_a", "wkv"],
    "fused_wkv_wgate": ["wkv", "wgate"],
    "gate_up_proj": ["w1", "w3"],
}


def prove_mapping(tree: Tree) -> None:
    """Raises PatchError."""
    _check(MODEL, "DeepseekV4ForCausalLM", _mapping(tree, MODEL, "DeepseekV4ForCausalLM"))


def prove_mtp_mapping(tree: Tree) -> None:
    """The draft's own, or with none of its own the main model's, whose quant_config it shares. Raises PatchError."""
    own = _mapping(tree, MTP, "DeepSeekV4MTP")
    if own is None and _mapping(tree, MODEL, "DeepseekV4ForCausalLM") == MAPPING and _draft_shares_quant_config(tree):
        return
    _check(MTP, "DeepSeekV4MTP", own)


def _mapping(tree: Tree, path: str, name: str) -> object:
    """The class's attribute, None where it has none."""
    values = [
        node.value
        for node in definition(tree.module(path).body, name, path).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and ATTRIBUTE in assigned(node)
    ]
    return ast.literal_eval(values[-1]) if values else None


def _check(path: str, name: str, found: object) -> None:
    if found is None:
        raise PatchError(f"{path}: {name} has no {ATTRIBUTE}")
    if found != MAPPING:
        raise PatchError(f"{path}: {name}.{ATTRIBUTE} is {found}, not {MAPPING}")


def _draft_shares_quant_config(tree: Tree) -> bool:
    """Runs what makes the draft's configuration of the main model's, with stand-ins for both."""
    namespace = {"replace": lambda config, **changes: Unset(**{**vars(config), **changes})}
    create = standins.method(tree, PROPOSER, "SpecDecodeBaseProposer", "_create_draft_vllm_config", namespace)
    quant_config = object()
    main = Unset(quant_config=quant_config, attention_config=Unset(backend="the main model's"))
    draft = create(Unset(vllm_config=main, speculative_config=Unset()))
    return draft.quant_config is quant_config
