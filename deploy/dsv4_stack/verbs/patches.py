"""`dsv4 patches`: what an engine's series is, and proof that it is right for the engine's own vLLM."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dsv4_stack import assets, lock, matrix, pins, wheels
from dsv4_stack.errors import ConfigError, PatchError, UsageError
from dsv4_stack.guest import patches
from dsv4_stack.guest.patches import Result
from dsv4_stack.guest.patching import releases, series
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.tree import Tree, root_of, version_of
from dsv4_stack.pins import Engine, Pins
from dsv4_stack.verbs.common import print_json, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="each patch with what fails without it and when to drop it")
    diff = actions.add_parser("diff", help="the series of an engine as one plain diff, for git apply or patch -p1")
    check = actions.add_parser(
        "check",
        help="each patch applies without fuzz and its effect is proved, or is upstream",
        description="Fetch the Python files of the engine's wheel by hash, or take an unpacked vLLM, and prove there "
        "that each patch applies without fuzz and has its effect, or that upstream has it.",
    )
    for action in (listing, diff, check):
        action.add_argument(
            "--engine",
            default=os.environ.get("DSV4_ENGINE", ""),
            metavar="E",
            help="an engine of pins.toml (default: $DSV4_ENGINE, else the pins' default)",
        )
    for action in (listing, check):
        action.add_argument("--json", action="store_true", help="print JSON instead of text")
    tree = check.add_mutually_exclusive_group()
    tree.add_argument("--source", type=Path, metavar="DIR", help="an unpacked vLLM of the engine (default: its wheel)")
    tree.add_argument("--release", metavar="R", help="a release of pins.toml instead of an engine; `all` for each")
    check.add_argument(
        "--whole", action="store_true", help="fetch the whole wheel, and hold it against its own hash too"
    )


def run(args: argparse.Namespace) -> None:
    pinned = lock.apply(pins.load(assets.pins_file()), lock.load(assets.known_lock()))
    engine = pins.engine_named(pinned, args.engine or pinned.default_engine)
    if args.action == "check":
        _check(list(_subjects(args, pinned, engine)), as_json=args.json)
    elif args.action == "diff":
        release = matrix.releases_of(pinned, engine)[0]
        sys.stdout.write("".join(patch.layout(release).text for patch in matrix.needed(pinned, engine)))
    else:
        _list(matrix.row(pinned, engine), as_json=args.json)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A tree to check; `release` is what it is, or is like."""

    name: str
    release: Release
    tree: Path


def _subjects(args: argparse.Namespace, pinned: Pins, engine: Engine) -> Iterator[Subject]:
    if args.source and args.whole:
        raise UsageError("--whole fetches a wheel, --source names what is there already", "drop one of them")
    if args.source:
        root = root_of(args.source)
        yield Subject(name=engine.name, release=_release_for(engine, pinned, root), tree=root)
        return
    if not args.release and engine.wheel:
        yield from _own_wheel(engine, matrix.releases_of(pinned, engine)[0], whole=args.whole)
    for name in _release_names(args.release, pinned, engine):
        facts = pinned.releases[name]
        yield Subject(name=name, release=facts.release, tree=wheels.tree(facts.wheel, say, whole=args.whole))


def _release_for(engine: Engine, pinned: Pins, root: Path) -> Release:
    """The engine's release that a tree says it is; its first where that says none of its own. Raises UsageError."""
    known = matrix.releases_of(pinned, engine)
    version = version_of(Tree(root=root))
    if version in ("", engine.version):
        return known[0]
    with suppress(ConfigError):
        # Another build of a release, for another CUDA, has its code.
        release = releases.parse(version)
        if release in known:
            return release
    raise UsageError(
        f"{root} holds vLLM {version}, and engine {engine.name} is {' or '.join(map(str, known))}",
        "name the engine of that release with --engine",
    )


def _own_wheel(engine: Engine, like: Release, *, whole: bool) -> Iterator[Subject]:
    """A commit's wheel where it is locked; else its neighbours speak for it, and that is said."""
    wheel = engine.wheel
    if wheel and wheel.sha256 and wheel.record:
        yield Subject(name=engine.name, release=like, tree=wheels.tree(wheel, say, whole=whole))
    else:
        say(f"engine {engine.name}: its wheel is unlocked (dsv4 lock); {' and '.join(engine.releases)} speak for it")


def _release_names(asked: str | None, pinned: Pins, engine: Engine) -> tuple[str, ...]:
    if asked is None:
        return engine.releases
    if asked == "all":
        return tuple(pinned.releases)
    if asked not in pinned.releases:
        raise UsageError(
            f"there is no release {asked!r} in pins.toml", f"choose one of: all, {', '.join(pinned.releases)}"
        )
    return (asked,)


def _check(subjects: list[Subject], *, as_json: bool) -> None:
    """Every subject, whatever the one before it gave."""
    loaded = series.load(assets.PATCHES)
    results: dict[str, list[Result]] = {}
    errors: list[PatchError] = []
    for subject in subjects:
        try:
            results[subject.name] = patches.check(subject.tree, loaded, subject.release)
        except PatchError as error:
            errors.append(error)
    if as_json:
        print_json({name: [asdict(result) for result in found] for name, found in results.items()})
    else:
        for name, found in results.items():
            print("\n".join(f"{name}: {result}" for result in found))
    if errors:
        raise PatchError("\n".join(error.message for error in errors), errors[0].next_step)


def _list(row: matrix.Row, *, as_json: bool) -> None:
    patches_of_row = sorted([*row.needed, *row.upstream], key=lambda patch: patch.name)
    entries = [
        {
            "patch": patch.name,
            "subject": patch.subject,
            "needed": patch in row.needed,
            "releases": str(patch.span),
            "without_it": patch.fails_without,
            "upstream": patch.upstream,
            "drop_when": patch.drop_when,
        }
        for patch in patches_of_row
    ]
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        print(f"{entry['patch']}: {entry['subject']}")
        print(f"  {row.engine.name}: {'needs it' if entry['needed'] else 'upstream has it'}; for {entry['releases']}")
        print(f"  without it: {entry['without_it']}")
        print(f"  upstream: {entry['upstream']}")
        print(f"  drop when: {entry['drop_when']}")
