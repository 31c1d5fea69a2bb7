"""The lint itself: each layer as it is stored and as vLLM would load it, and where the two differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.lint import matching, schemes
from dsv4_stack.guest.lint.layers import FUSED, Layer, layers
from dsv4_stack.guest.lint.matching import Fused, Matching, MixedShardsError
from dsv4_stack.guest.lint.schemes import Scheme
from dsv4_stack.guest.loader import Loader

MODEL_TYPE: Final = "deepseek_v4"
EXPERTS: Final = "ffn.experts"


@dataclass(frozen=True, kw_only=True)
class Report:
    """`schemes` says by kind of layer ("attn.wq_b") how it would be loaded, in words where layers differ.

    `mapping_matters`: without packed_modules_mapping some layer would be loaded otherwise. `draft_excluded`: the MTP
    draft, stored in BF16, is loaded so. `problems` end in a failed load or in wrong numbers; those of the draft alone
    are in `draft_problems`, and count only where it is used.
    """

    schemes: dict[str, str]
    mapping_matters: bool
    draft_excluded: bool
    problems: tuple[str, ...]
    draft_problems: tuple[str, ...]

    def problems_of(self, loader: Loader) -> tuple[str, ...]:
        """Those that count for it."""
        return self.problems + (self.draft_problems if loader.mtp else ())

    def summary(self) -> str:
        kinds: dict[str, list[str]] = {}
        for kind, scheme in self.schemes.items():
            if not kind.startswith("mtp"):
                kinds.setdefault(scheme, []).append(kind)
        parts = [f"{scheme}: {', '.join(names)}" for scheme, names in kinds.items()]
        draft = "excluded" if self.draft_excluded else "not excluded"
        mapping = "matters" if self.mapping_matters else "does not matter"
        return "; ".join([*parts, f"packed_modules_mapping {mapping}", f"MTP draft {draft}"])


def examine(config: Mapping[str, Any], loader: Loader, found_by: Matching | None = None) -> Report:
    """What a loader would make of a DeepSeek-V4 config.json.

    `found_by` are vLLM's own functions (matching.of_tree) where a tree is there. Raises ConfigError where the config is
    not one of DeepSeek-V4 in compressed-tensors.
    """
    quantization = config.get("quantization_config")
    if config.get("model_type") != MODEL_TYPE or not isinstance(quantization, Mapping):
        raise ConfigError("the config is none of a quantized DeepSeek-V4", "lint a config.json of DeepSeek-V4")
    if quantization.get("quant_method") != "compressed-tensors":
        raise ConfigError(
            f"quant_method is {quantization.get('quant_method')!r}, not 'compressed-tensors'",
            "lint another config.json",
        )
    lint = _Lint(quantization, found_by or matching.own(loader.release))
    try:
        for layer in layers(config, loader.release):
            lint.look_at(layer)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"the config cannot be read: {type(error).__name__}: {error}", "mend its config.json"
        ) from None
    lint.look_at_experts(config, loader.ranks)
    return lint.report()


class _Lint:
    def __init__(self, quantization: Mapping[str, Any], found_by: Matching) -> None:
        self.found_by = found_by
        self.groups = schemes.targets(quantization)
        self.ignore = list(quantization.get("ignore") or ())
        self.loaded: dict[str, dict[str, None]] = {}
        self.mapping_matters = False
        self.problems: list[str] = []
        self.draft_problems: list[str] = []

    def look_at(self, layer: Layer) -> None:
        stored = {self._scheme(part, "Linear", {}) for part in layer.parts}
        try:
            loaded = self._scheme(layer.name, layer.class_name, FUSED)
        except MixedShardsError as error:
            self._complain(layer, str(error))
            return
        self.mapping_matters |= loaded != self._scheme(layer.name, layer.class_name, {})
        self.loaded.setdefault(layer.kind, {})[loaded] = None
        if stored != {loaded}:
            held = " and ".join(sorted(stored))
            self._complain(layer, f"{layer.name or layer.kind} would be loaded as {loaded}, but is stored as {held}")

    def look_at_experts(self, config: Mapping[str, Any], ranks: int) -> None:
        found = list(self.loaded.get(EXPERTS, {}))
        if not set(found) <= {Scheme.W4A8, Scheme.W4A16}:
            self.problems.append(f"{EXPERTS} would be loaded as {' or '.join(found)}: no group of the config is theirs")
        for group in self.groups.values():
            if schemes.scheme_of(group) is Scheme.W4A8:
                self.problems += schemes.w4a8_problems(group, config, ranks)

    def _complain(self, layer: Layer, problem: str) -> None:
        (self.draft_problems if layer.draft else self.problems).append(problem)

    def _scheme(self, name: str, class_name: str, fused: Fused) -> Scheme:
        if self.found_by.ignores(name, self.ignore, fused):
            return Scheme.BF16
        target = self.found_by.target(name, class_name, list(self.groups), fused)
        return schemes.scheme_of(None if target is None else self.groups[target])

    def report(self) -> Report:
        return Report(
            schemes={kind: " or ".join(found) for kind, found in self.loaded.items()},
            mapping_matters=self.mapping_matters,
            draft_excluded=not self.draft_problems,
            problems=tuple(dict.fromkeys(self.problems)),
            draft_problems=tuple(dict.fromkeys(self.draft_problems)),
        )
