"""How vLLM finds the quantization of a layer by its name: our reading of it, and vLLM's own code where it is there.

Both are held against each other by tests/image/test_matching.py, on every release that pins.toml has.
Source: vllm/model_executor/layers/quantization/compressed_tensors/utils.py
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dsv4_stack.guest.patching import standins
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.tree import Tree

QUANTIZATION: Final = "vllm/model_executor/layers/quantization"
UTILS: Final = f"{QUANTIZATION}/compressed_tensors/utils.py"
CONFIG_UTILS: Final = f"{QUANTIZATION}/utils/config_utils.py"
FUSED_BEFORE_CLASS: Final = Release(0, 27, 0)
IGNORED_BY_ANY_NAME: Final = Release(0, 30, 0)

Fused = Mapping[str, list[str]]
"""A fused layer's last name -> what it is made of."""


class MixedShardsError(ValueError):
    """Some parts of a fused layer are ignored, others not: vLLM refuses the config."""


@dataclass(frozen=True, kw_only=True)
class Matching:
    """`ignores(name, ignore, fused)` says whether a layer stays unquantized; raises MixedShardsError.

    `target(name, class_name, targets, fused)` gives the target that a layer falls under, or None.
    """

    ignores: Callable[[str, Sequence[str], Fused], bool]
    target: Callable[[str, str, Sequence[str], Fused], str | None]


def own(release: Release) -> Matching:
    """As the release does it."""
    return Matching(
        ignores=_ignores_by_any_name if release >= IGNORED_BY_ANY_NAME else _ignores_by_parts,
        target=_target_fused_first if release >= FUSED_BEFORE_CLASS else _target_class_first,
    )


def of_tree(tree: Tree) -> Matching:
    """The functions of a vLLM tree, run on their own. Raises PatchError where the tree has them elsewhere."""
    namespace: standins.Namespace = {"re": re, "Mapping": Mapping, "Iterable": Iterable, "MappingProxyType": dict}
    if b"find_matching_patterns" in tree.read(UTILS):
        standins.run_definitions(tree, CONFIG_UTILS, ["find_matching_patterns", "is_equal_or_regex_match"], namespace)
        names = ["should_ignore_layer", "find_matched_target", "_find_first_match", "_match_fused_layer"]
    else:
        names = ["should_ignore_layer", "check_equal_or_regex_match", "find_matched_target"]
        names += ["_find_first_match", "_is_equal_or_regex_match", "_match_fused_layer"]
    found = standins.run_definitions(tree, UTILS, names, namespace)
    return Matching(ignores=_ignores_of(found["should_ignore_layer"]), target=_target_of(found["find_matched_target"]))


def _ignores_of(function: Callable[..., bool]) -> Callable[[str, Sequence[str], Fused], bool]:
    def ignores(name: str, ignore: Sequence[str], fused: Fused) -> bool:
        try:
            return function(name, ignore=ignore, fused_mapping=fused)
        except ValueError as error:
            raise MixedShardsError(str(error)) from None

    return ignores


def _target_of(function: Callable[..., Any]) -> Callable[[str, str, Sequence[str], Fused], str | None]:
    def target(name: str, class_name: str, targets: Sequence[str], fused: Fused) -> str | None:
        found: str | None = function(name, type(class_name, (), {})(), targets, fused)
        return found

    return target


def _matches(name: str, pattern: str) -> bool:
    """vLLM uses the package `regex`, which reads these patterns as `re` does."""
    return bool(re.match(pattern[3:], name)) if pattern.startswith("re:") else pattern == name


def _first(name: str, patterns: Iterable[str]) -> str | None:
    return next((pattern for pattern in patterns if _matches(name, pattern)), None)


def _ignores_by_parts(name: str, ignore: Sequence[str], fused: Fused) -> bool:
    parts = _parts_by_last_name(name, fused)
    if parts is None or name in ignore:
        return _first(name, ignore) is not None
    return _all_alike(name, [_first(part, ignore) is not None for part in parts])


def _ignores_by_any_name(name: str, ignore: Sequence[str], fused: Fused) -> bool:
    if _first(name, ignore) is not None:
        return True
    parts = _parts_by_last_name(name, fused)
    return parts is not None and _all_alike(name, [_first(part, ignore) is not None for part in parts])


def _all_alike(name: str, ignored: list[bool]) -> bool:
    if len(set(ignored)) > 1:
        raise MixedShardsError(f"some parts of {name} are ignored, others are not")
    return ignored[0]


def _parts_by_last_name(name: str, fused: Fused) -> list[str] | None:
    last = name.rpartition(".")[2]
    return [name.replace(last, part) for part in fused[last]] if last in fused else None


def _target_class_first(name: str, class_name: str, targets: Sequence[str], fused: Fused) -> str | None:
    return _first(name, targets) or _of_class(class_name, targets) or _of_parts(name, targets, fused)


def _target_fused_first(name: str, class_name: str, targets: Sequence[str], fused: Fused) -> str | None:
    return _first(name, targets) or _of_parts(name, targets, fused) or _of_class(class_name, targets)


def _of_class(class_name: str, targets: Sequence[str]) -> str | None:
    for target in targets:
        if _matches(class_name, target) if target.startswith("re:") else target.lower() in class_name.lower():
            return target
    return None


def _of_parts(name: str, targets: Sequence[str], fused: Fused) -> str | None:
    key = next((key for key in fused if name.endswith(key)), None)
    if key is None:
        return None
    found = [_first(name.replace(key, part), targets) for part in fused[key]]
    return found[0] if all(found) else None
