"""What each patch is there for, proved of a tree by what its code does, with the standard library alone.

The same proof says that upstream already has a fix, that a patch works, and at every start that it is still there.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching.clamp_effect import prove_clamp
from dsv4_stack.guest.patching.layer_type_effect import prove_layer_types
from dsv4_stack.guest.patching.mapping_effect import prove_mapping, prove_mtp_mapping
from dsv4_stack.guest.patching.scale_effect import prove_scale_name
from dsv4_stack.guest.patching.tree import Tree


class Effect(StrEnum):
    """The names that a patch's `Effect:` field may have."""

    PACKED_MODULES_MAPPING = "packed-modules-mapping"
    PACKED_MODULES_MAPPING_MTP = "packed-modules-mapping-mtp"
    HASH_MOE_LAYER_TYPE = "hash-moe-layer-type"
    O_PROJ_SCALE_NAME = "o-proj-scale-name"
    W4A8_SWIGLU_CLAMP = "w4a8-swiglu-clamp"


_PROOFS: Final[Mapping[Effect, Callable[[Tree], None]]] = {
    Effect.PACKED_MODULES_MAPPING: prove_mapping,
    Effect.PACKED_MODULES_MAPPING_MTP: prove_mtp_mapping,
    Effect.HASH_MOE_LAYER_TYPE: prove_layer_types,
    Effect.O_PROJ_SCALE_NAME: prove_scale_name,
    Effect.W4A8_SWIGLU_CLAMP: prove_clamp,
}


def missing(effect: Effect, tree: Tree) -> str:
    """Why the effect is not to be seen in the tree, with the file; empty where it is proved."""
    try:
        _PROOFS[effect](tree)
    except PatchError as error:
        return error.message
    except Exception as error:  # the tree's own code ran, and may raise anything
        return f"its code cannot be run with stand-ins: {type(error).__name__}: {error}"
    return ""
