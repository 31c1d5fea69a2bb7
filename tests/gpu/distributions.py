"""What the random weights are drawn from. No torch here, so that the unit tests reach it."""

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Words = TypeVar("Words", int, "Tensor")

# Standard deviations. A layer adds some 0.3 (attention) and 0.7 (experts) to what it gets, and much of what attention
# adds is the same for all tokens: with embeddings as small as the weights, tokens grow alike from layer to layer, and
# the later routers send most of them to a few experts.
WEIGHTS: Final = 0.02
EMBEDDING: Final = 4.0


def centred(packed: Words) -> Words:
    """Eight INT4 to a word, each with 8 added: -8 becomes 0, so that the mean is 0 and not -0.5.

    That half would be one more direction for all tokens to grow alike in.
    """
    lowest = ~(packed | packed >> 1 | packed >> 2 | packed >> 3) & 0x11111111
    return packed | lowest << 3
