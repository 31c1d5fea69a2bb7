"""Apply a patch series to a vLLM tree, rehearse that, or prove that it is in effect."""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from dsv4_stack.errors import PatchError
from dsv4_stack.guest.patching import diff, releases, series
from dsv4_stack.guest.patching.diff import FileDiff
from dsv4_stack.guest.patching.effects import missing
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.series import Patch
from dsv4_stack.guest.patching.tree import Tree, find_vllm, release_of, root_of

__all__ = ["Result", "State", "add_arguments", "apply", "check", "find_vllm", "in_effect", "run"]


class State(StrEnum):
    """What was found or done."""

    APPLIED = "applied"
    APPLIES = "applies"
    IN_EFFECT = "in effect"
    ALREADY_UPSTREAM = "already upstream"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One patch; `offsets` has for every hunk by how many lines it lay away from where the patch says.

    `since` is the first release that needs the patch no more, where the tree is of that one or a later one.
    """

    patch: str
    state: State
    offsets: tuple[int, ...] = ()
    since: str = ""

    def __str__(self) -> str:
        distinct = dict.fromkeys(offset for offset in self.offsets if offset)
        offsets = f" (offset {', '.join(f'{offset:+d}' for offset in distinct)})" if distinct else ""
        return f"{self.patch} {self.state}{f' since {self.since}' if self.since else ''}{offsets}"


def apply(tree: Path, patches: Sequence[Patch], release: Release) -> list[Result]:
    """Patch the files below `tree`, the directory that holds `vllm/`, and prove every effect there.

    All or nothing: the whole series is rehearsed in memory before the first file is written. A patch that `release`
    needs is applied; of every other one upstream has the effect, which is proved too. Raises PatchError that names
    every patch which fails, with file and hunk or effect.
    """
    patched, results = _rehearse(Tree(root=tree), patches, release)
    for path, data in patched.edits.items():
        _write(tree / path, data)
    in_effect(tree, patches)
    return [_with_state(result, State.APPLIES, State.APPLIED) for result in results]


def check(tree: Path, patches: Sequence[Patch], release: Release) -> list[Result]:
    """What `apply` would do, effects proved, without touching a file. Raises PatchError as `apply` does."""
    return _rehearse(Tree(root=tree), patches, release)[1]


def in_effect(tree: Path, patches: Sequence[Patch]) -> list[Result]:
    """Prove every effect of the tree as it is. Raises PatchError that names all that are not there."""
    problems = _absent(Tree(root=tree), patches)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise PatchError(
            f"{len(problems)} of {len(patches)} patches not in effect in {tree}:{listed}",
            "build the image again: dsv4 build",
        )
    return [Result(patch=patch.name, state=State.IN_EFFECT) for patch in patches]


def _rehearse(plain: Tree, patches: Sequence[Patch], release: Release) -> tuple[Tree, list[Result]]:
    tree = plain
    results: list[Result] = []
    errors: list[PatchError] = []
    for patch in patches:
        try:
            edits, result = _step(plain, tree, patch, release)
        except PatchError as error:
            errors.append(PatchError(f"{patch.name}: {error.message}", error.next_step))
        else:
            tree = tree.edited(edits)
            results.append(result)
    if errors:
        listed = "".join(f"\n  {error.message}" for error in errors)
        raise PatchError(
            f"{len(errors)} of {len(patches)} patches fail on vLLM {release} in {plain.root}:{listed}",
            errors[0].next_step,
        )
    return tree, results


def _step(plain: Tree, tree: Tree, patch: Patch, release: Release) -> tuple[Mapping[str, bytes], Result]:
    """What a patch changes in `tree`, which has the patches before it; `plain` says what was there without any."""
    reason = missing(patch.effect, plain)
    if release not in patch.span:
        return {}, _upstream(patch, release, reason)
    files = patch.layout(release).files
    if not reason:
        state = State.IN_EFFECT if _holds(plain, files) else State.ALREADY_UPSTREAM
        return {}, Result(patch=patch.name, state=state)
    applied = {file.path: diff.apply(tree.read(file.path), file) for file in files}
    edits = {path: change.data for path, change in applied.items()}
    if reason := missing(patch.effect, tree.edited(edits)):
        raise PatchError(f"applies, without its effect {patch.effect}: {reason}", "compare the patch with its proof")
    offsets = tuple(offset for change in applied.values() for offset in change.offsets)
    return edits, Result(patch=patch.name, state=State.APPLIES, offsets=offsets)


def _upstream(patch: Patch, release: Release, reason: str) -> Result:
    if release < patch.span.since:
        raise PatchError(f"is made for {patch.span}, not for {release}", "choose a later vLLM")
    if reason:
        raise PatchError(
            f"should be upstream since {patch.first_release}, but its effect {patch.effect} is not there: {reason}",
            "look at what upstream did there, then mend First-release or the proof",
        )
    return Result(patch=patch.name, state=State.ALREADY_UPSTREAM, since=patch.first_release)


def _holds(tree: Tree, files: Sequence[FileDiff]) -> bool:
    """Whether the tree has the patch's own lines."""
    try:
        for file in files:
            diff.apply(tree.read(file.path), file.reversed())
    except PatchError:
        return False
    return True


def _absent(tree: Tree, patches: Sequence[Patch]) -> list[str]:
    reasons = ((patch.name, missing(patch.effect, tree)) for patch in patches)
    return [f"{name}: {reason}" for name, reason in reasons if reason]


def _write(path: Path, data: bytes) -> None:
    """Replace a file, which may be a hard link into a package cache, and drop the bytecode of the old one."""
    beside = path.with_name(f".{path.name}.dsv4-new")
    try:
        beside.write_bytes(data)
        shutil.copymode(path, beside)
        beside.replace(path)
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            stale.unlink()
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise PatchError(f"{path} cannot be written: {error.strerror}", "run this as the owner of the tree") from None


def _with_state(result: Result, old: State, new: State) -> Result:
    state = new if result.state is old else result.state
    return replace(result, state=state)


_ACTIONS: Final = {
    "apply": "patch the tree in place and prove every effect",
    "check": "the same without touching a file",
    "effects": "prove that every effect is there",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in _ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument(
            "--series", type=Path, required=True, metavar="DIR", help="the directory of the patch files"
        )
        action.add_argument("--only", default="", metavar="NAME,…", help="these patches, in this order (default: all)")
        action.add_argument(
            "--release", default="", metavar="R", help="the release that the tree is or is like (default: what it says)"
        )
        add_source(action)


def add_source(parser: argparse.ArgumentParser) -> None:
    """The tree to work on, and how to print what comes of it."""
    parser.add_argument("--source", type=Path, metavar="DIR", help="an unpacked vLLM (default: the installed one)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> None:
    names = [name for name in args.only.split(",") if name]
    tree, patches = tree_of(args), series.load(args.series, names)
    if args.action == "effects":
        results = in_effect(tree, patches)
    else:
        release = releases.parse(args.release) if args.release else release_of(Tree(root=tree))
        results = (apply if args.action == "apply" else check)(tree, patches, release)
    print_results(results, as_json=args.json)


def tree_of(args: argparse.Namespace) -> Path:
    """The directory that holds `vllm/`. Raises NotFoundError."""
    return root_of(args.source) if args.source else find_vllm()


def print_results(results: Sequence[Result], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        print("\n".join(str(result) for result in results))
