"""`dsv4 materialize`: one complete checkpoint directory of a base's weights and the right config.json.

A directory that is already as asked for is left alone, and nobody is asked. Otherwise what is proven right stays, what
we wrote and no longer want goes, what this machine has already is linked, the rest is fetched, and the manifest is
written last.
"""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.checkpoint import found, locked, names, reports, specs
from dsv4_stack.guest.checkpoint.found import Found
from dsv4_stack.guest.checkpoint.locked import Lock
from dsv4_stack.guest.checkpoint.manifest import ConfigKind, Manifest, loader_name
from dsv4_stack.guest.checkpoint.specs import Request
from dsv4_stack.guest.download.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from dsv4_stack.guest.checkpoint.progress import Progress
    from dsv4_stack.guest.loader import Loader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = "org/name@revision, or a local folder"
    parser.add_argument("--base", required=True, metavar="SRC", help=f"the weights: {source}")
    parser.add_argument(
        "--overlay", metavar="SRC", help=f"where config.json comes from with --config overlay: {source}"
    )
    parser.add_argument(
        "--config",
        choices=[kind.value for kind in ConfigKind],
        help="the overlay's config.json, the base's converted, or the base's; default: overlay if --overlay, else base",
    )
    parser.add_argument("--dest", required=True, type=Path, metavar="DIR", help="the directory to make")
    parser.add_argument(
        "--jobs", type=int, default=DEFAULT.jobs, metavar="N", help="connections in all (default: %(default)s)"
    )
    parser.add_argument("--deep", action="store_true", help="hash what is there again, and repair what is wrong")
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="dsv4.lock: revisions, sizes and sha256 to hold it against"
    )
    parser.add_argument(
        "--reuse", type=Path, action="append", default=[], metavar="DIR", help="a folder that may have the same bytes"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PATTERN", help="take files of these names too, such as *.py"
    )
    parser.add_argument(
        "--stall-timeout",
        type=_seconds,
        default=DEFAULT.stall_s,
        metavar="S",
        help="open a connection anew that brings nothing for so many seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--stall-limit",
        type=_seconds,
        default=DEFAULT.patience_s,
        metavar="S",
        help="give up after so many seconds in which nothing came at all (default: %(default)g)",
    )
    parser.add_argument(
        "--for-release", metavar="R", help="refuse a config.json that vLLM R, such as 0.24.0, would load wrongly"
    )
    parser.add_argument(
        "--for-gpus", type=int, default=1, metavar="N", help="on how many GPUs that is (default: %(default)s)"
    )
    parser.add_argument("--for-mtp", action="store_true", help="and whether with the MTP draft")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched, reused and removed")
    parser.add_argument("--json", action="store_true", help="print JSON lines; the last one is the summary")


def run(args: argparse.Namespace) -> None:
    request = _request(args)
    for spec in (request.base, request.overlay):
        specs.refuse_overlap(spec, args.dest.resolve())
    lock = locked.load(args.lock) if args.lock else {}
    with _interrupted_by_sigterm():
        there = found.look(args.dest, deep=args.deep, progress=_progress(args) if args.deep else None)
        if known := there.answer(request, lock):
            _examine(args, known)
            reports.nothing_to_do(args.dest, known, dry=args.dry_run, as_json=args.json)
        else:
            _make(args, request, lock, there)


def _progress(args: argparse.Namespace) -> "Progress":
    from dsv4_stack.guest.checkpoint.progress import Progress  # noqa: PLC0415 - as below

    return Progress(as_json=args.json)


def _loader(args: argparse.Namespace) -> "Loader | None":
    from dsv4_stack.guest.loader import Loader  # noqa: PLC0415 - as below
    from dsv4_stack.guest.patching import releases  # noqa: PLC0415

    if not args.for_release:
        return None
    if args.for_gpus < 1:
        raise UsageError("--for-gpus should be at least 1", "leave it out for one")
    return Loader(release=releases.parse(args.for_release), ranks=args.for_gpus, mtp=args.for_mtp)


def _examine(args: argparse.Namespace, known: Manifest) -> None:
    """The config.json that is there, where another engine is to load it than the one that it was examined for."""
    asked = loader_name(args.for_release, args.for_gpus, mtp=args.for_mtp) if args.for_release else ""
    if asked not in ("", known.examined_for) and (loader := _loader(args)):
        from dsv4_stack.guest.lint import refusal  # noqa: PLC0415 - as below

        refusal.refuse_file(args.dest / "config.json", loader)


def _make(args: argparse.Namespace, request: Request, lock: Lock, there: Found) -> None:
    # Whatever fetches costs a tenth of a second, which a directory that is complete need not pay at each start.
    from dsv4_stack.guest.checkpoint import making  # noqa: PLC0415

    options = making.Options(
        lock=lock,
        limits=Limits(jobs=args.jobs, stall_s=args.stall_timeout, patience_s=args.stall_limit),
        deep=args.deep,
        hashed=there if args.deep and there.ours else None,
        reuse=tuple(args.reuse),
        loader=_loader(args),
    )
    progress = _progress(args)
    if args.dry_run:
        reports.plan(args.dest, making.plan(request, args.dest, options, progress), as_json=args.json)
    else:
        outcome = making.make(request, args.dest, options, progress)
        reports.outcome(args.dest, outcome.manifest, outcome.steps, as_json=args.json)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _request(args: argparse.Namespace) -> Request:
    kind = ConfigKind(args.config or (ConfigKind.OVERLAY if args.overlay else ConfigKind.BASE))
    if (kind is ConfigKind.OVERLAY) != bool(args.overlay):
        raise UsageError(
            f"--config {kind} does not go with{'' if args.overlay else 'out'} --overlay", "leave one out, or both"
        )
    for pattern in args.allow:
        if problem := names.problem_of_pattern(pattern):
            raise UsageError(f"--allow {pattern!r} {problem}", "name what it takes, as *.py does")
    if args.jobs < 1:
        raise UsageError("--jobs should be at least 1", f"leave it out for {DEFAULT.jobs}")
    return Request(
        base=specs.parse(args.base),
        overlay=specs.parse(args.overlay) if args.overlay else None,
        config=kind,
        allow=tuple(args.allow),
    )


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """As a container's first process it would not end on SIGTERM by itself; it is cleaned up after as after ^C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
