"""What two JSON documents differ in, path by path. Key order and the spelling of numbers do not count."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def difference(ours: object, theirs: object) -> list[str]:
    """One line for each difference, in the order of `ours`: `a.b[0]: 4 -> 8`, `a.c: added 1`, `a.d: removed 2`."""
    return list(_differences("", ours, theirs))


def _differences(path: str, ours: object, theirs: object) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        yield from _of_objects(path, ours, theirs)
    elif isinstance(ours, list) and isinstance(theirs, list):
        yield from _of_lists(path, ours, theirs)
    elif not _same_leaf(ours, theirs):
        yield f"{path or '(whole)'}: {_shown(ours)} -> {_shown(theirs)}"


def _of_objects(path: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    for key, value in ours.items():
        if key in theirs:
            yield from _differences(_below(path, key), value, theirs[key])
        else:
            yield f"{_below(path, key)}: removed {_shown(value)}"
    for key, value in theirs.items():
        if key not in ours:
            yield f"{_below(path, key)}: added {_shown(value)}"


def _of_lists(path: str, ours: list[Any], theirs: list[Any]) -> Iterator[str]:
    common = min(len(ours), len(theirs))
    for index in range(common):
        yield from _differences(f"{path}[{index}]", ours[index], theirs[index])
    for index, value in enumerate(ours[common:], common):
        yield f"{path}[{index}]: removed {_shown(value)}"
    for index, value in enumerate(theirs[common:], common):
        yield f"{path}[{index}]: added {_shown(value)}"


def _same_leaf(ours: object, theirs: object) -> bool:
    """For Python True is 1; in JSON it is not."""
    return isinstance(ours, bool) == isinstance(theirs, bool) and bool(ours == theirs)


def _below(path: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


def _shown(value: object) -> str:
    return json.dumps(value)
