"""How long each kind of silence is borne, in seconds. Every profile says it: profiles/*.toml, [health]."""

import json
from dataclasses import dataclass

from dsv4_stack.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Patience:
    ready_s: float = 3600
    """From the start until the golden answer."""
    stall_s: float = 600
    """A start that moves nothing is looked into."""
    quiet_s: float = 60
    """Requests run and nothing moves: the golden question is asked."""
    hang_s: float = 300
    """… and nothing has moved since, its answer included: the engine hangs."""
    grace_s: float = 15
    """A hang that ends by itself within so long was none; then the engine is ended."""
    recheck_s: float = 300
    """The golden question is asked again; 0: never."""
    wrong_s: float = 30
    """… sooner after a wrong answer, because nobody is served until one is right."""
    drain_s: float = 120
    """Requests in flight get so long when the engine is stopped."""
    weights_s: float = 60
    """The weights' sizes and times are looked at again."""


def of_json(text: str) -> Patience:
    """Raises ConfigError."""
    try:
        return Patience(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"DSV4_PATIENCE is not valid: {error}", "render the project again: dsv4 render") from None
