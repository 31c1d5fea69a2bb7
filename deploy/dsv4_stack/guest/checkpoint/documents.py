"""JSON that others wrote, read as data: bounded in size and depth, no key twice, no NaN."""

import json
from typing import Any, Final

from dsv4_stack.errors import ConfigError

DEPTH: Final = 64
"""The real config.json nests five deep; what recurses over a document later may count on this."""


def json_object(content: bytes, name: str, limit: int, next_step: str) -> dict[str, Any]:
    """A config's members, key order kept, of at most `limit` bytes. `name` is for messages. Raises ConfigError."""
    if len(content) > limit:
        raise ConfigError(f"{name} has more than {limit} bytes; no config.json has", next_step)
    try:
        document = DECODER.decode(content.decode())
    except RecursionError:
        raise ConfigError(f"{name} is not JSON: nested too deeply", next_step) from None
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}", next_step) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{name} should hold a JSON object", next_step)
    if _is_deeper(document, DEPTH):
        raise ConfigError(f"{name} is not JSON: nested too deeply", next_step)
    return document


def _is_deeper(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _inner(outer)]
    return any(isinstance(value, dict | list) for value in level)


def _inner(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key!r} stands twice in one object")
        members[key] = value
    return members


def _no_constant(spelling: str) -> None:
    raise ValueError(f"{spelling} is no JSON number")


DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_no_constant)
"""Raises ValueError for what is no JSON, a key that stands twice included, and RecursionError."""
