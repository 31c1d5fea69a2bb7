"""Make a directory what is asked for: ask the sources, keep what is right, bring the rest, write the manifest."""

import ctypes
import resource
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest import gate
from dsv4_stack.guest.checkpoint import directory, found, journal, lease, locked, manifest, reuse
from dsv4_stack.guest.checkpoint.found import Found
from dsv4_stack.guest.checkpoint.journal import Journal
from dsv4_stack.guest.checkpoint.lease import Lease
from dsv4_stack.guest.checkpoint.locked import Lock
from dsv4_stack.guest.checkpoint.manifest import TOOL, CheckedAgainst, ConfigKind, Entry, Manifest
from dsv4_stack.guest.checkpoint.progress import Progress
from dsv4_stack.guest.checkpoint.reuse import Reuse
from dsv4_stack.guest.checkpoint.sources import Source, open_source
from dsv4_stack.guest.checkpoint.specs import HubSpec, Request, Spec
from dsv4_stack.guest.checkpoint.steps import PARTIAL, How, Steps, reclaimed, steps_for
from dsv4_stack.guest.checkpoint.transfer import Transfer
from dsv4_stack.guest.checkpoint.wanted import CONFIG, Selection, select
from dsv4_stack.guest.download.limits import DEFAULT, Limits
from dsv4_stack.guest.lint import refusal
from dsv4_stack.guest.loader import Loader

_M_ARENA_MAX: Final = -8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`steps` are what this run did, None where there was nothing to do."""

    manifest: Manifest
    steps: Steps | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to go about it. `reuse` are folders that may hold bytes of the same files.

    `hashed` is what a deep look has found already. `loader` is who has to be able to load the result, if anybody.
    """

    lock: Lock
    limits: Limits = DEFAULT
    deep: bool = False
    hashed: Found | None = None
    reuse: tuple[Path, ...] = ()
    loader: Loader | None = None


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a directory shall be, and the steps to it."""

    base: Source
    overlay: Source | None
    selection: Selection
    steps: Steps


def make(request: Request, dest: Path, options: Options, progress: Progress) -> Outcome:
    """Make `dest` what the request says. Raises one of the errors; `dest` then has its old manifest, or none."""
    _allow_many_files()
    _share_one_heap()
    with lease.held(dest, progress) as held:
        left = _look(dest, options, progress)
        if known := left.answer(request, options.lock):
            _examine(dest, known, options)
            return Outcome(manifest=known, steps=None)
        # Where a run that is killed leaves nothing that the next one does not take away.
        intent = intend(request, dest, left, options, progress, scratch=dest / PARTIAL)
        done, brought = _bring(dest, intent.steps, left, options.limits, progress=progress, held=held)
        made = _manifest(request, intent, {**done.keep, **brought}, options.loader)
        _refuse_changes(dest, made)
        manifest.store(dest, made)
        journal.forget(dest)
        return Outcome(manifest=made, steps=done)


def plan(request: Request, dest: Path, options: Options, progress: Progress) -> Steps | None:
    """What `make` would do, None for nothing. Writes nothing to `dest`, and waits for nobody."""
    left = _look(dest, options, progress)
    if known := left.answer(request, options.lock):
        _examine(dest, known, options)
        return None
    steps = intend(request, dest, left, options, progress).steps
    directory.refuse_small_disk(dest, steps.bytes_to_move, reclaimed(dest, steps))
    return steps


def intend(
    request: Request, dest: Path, left: Found, options: Options, progress: Progress, *, scratch: Path | None = None
) -> Intent:
    """Ask the sources, and look at what is there. Small files come to `scratch`, or to a temporary folder."""

    def note(text: str) -> None:
        progress.say("retry", text, trouble=text)

    known = Reuse(dest, extra=options.reuse, hub_cache=reuse.hub_cache(), believe=not options.deep)

    def source(spec: Spec) -> Source:
        if options.lock and isinstance(spec, HubSpec) and not locked.find(options.lock, spec.repo, spec.requested):
            said = f"the lock has no {spec}, so the Hub alone says what it is"
            progress.say("note", said, source=str(spec))
        return open_source(spec, options.lock, options.limits, known, note, scratch=scratch)

    base, overlay = source(request.base), source(request.overlay) if request.overlay else None
    selection = select(base, overlay, converted=request.config is ConfigKind.CONVERT, allow=request.allow)
    if options.loader:
        refusal.refuse(selection.config, f"{(overlay or base).name}/{CONFIG}", options.loader)
    there = gate.present(dest) if dest.exists() else {}
    directory.refuse_foreign(dest, there.keys() - left.ours.keys() - {file.path for file in selection.files})
    kept = directory.prove(dest, selection.files, there, left.proven, progress)
    directory.refuse_foreign(dest, there.keys() - left.ours.keys() - kept.keys())
    missing = [file for file in selection.files if file.path not in kept]
    steps = steps_for(dest, missing, kept, sorted(there.keys() - kept.keys()), known)
    return Intent(base=base, overlay=overlay, selection=selection, steps=steps)


def _examine(dest: Path, known: Manifest, options: Options) -> None:
    """Another run may have made it meanwhile, for another engine."""
    if options.loader and known.examined_for != str(options.loader):
        refusal.refuse_file(dest / CONFIG, options.loader)


def _look(dest: Path, options: Options, progress: Progress) -> Found:
    def note(path: str, problem: str) -> None:
        progress.say("note", f"{path}: {problem}" if path else problem, path=path, problem=problem)

    return found.look(dest, deep=options.deep, hashed=options.hashed, note=note)


def _bring(
    dest: Path, steps: Steps, left: Found, limits: Limits, *, progress: Progress, held: Lease
) -> tuple[Steps, dict[str, Entry]]:
    """Do the steps. Those that were done in the end, and what they brought."""
    directory.refuse_small_disk(dest, steps.bytes_to_move, reclaimed(dest, steps))
    progress.say("start", steps.sentence(), **steps.fields())
    there = gate.present(dest)
    ours = {path: entry for path, entry in left.ours.items() if path in there} | dict(steps.keep)
    written = Journal(dest, ours)
    directory.remove(dest, [*steps.remove, *(path.relative_to(dest).as_posix() for path in steps.litter)])
    transfer = Transfer(dest, written, limits, progress, held.check)
    transfer.bring_all(steps.bring)
    held.check()
    done = [replace(step, how=How.FETCH) if step.file.path in transfer.fetched else step for step in steps.bring]
    return replace(steps, bring=tuple(done)), {step.file.path: written.entries[step.file.path] for step in done}


def _allow_many_files() -> None:
    """Each file that is fetched takes two descriptors, and the usual limit is meant for programs that use select."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _share_one_heap() -> None:
    """Else glibc gives each connection's thread a heap of its own, and each keeps what was once needed there.

    Nearly all that takes memory here holds Python's own lock meanwhile, so nobody waits. Other C libraries have no such
    heaps.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _refuse_changes(dest: Path, made: Manifest) -> None:
    """Hours may have gone by since a file that stayed was looked at."""
    if problems := gate.problems(dest, made, deep=False):
        lines = "\n".join(f"  {path}: {problem}" for path, problem in problems.items())
        raise IntegrityError(f"{dest} was changed while it was made:\n{lines}", "run it again when nobody writes there")


def _manifest(request: Request, intent: Intent, files: dict[str, Entry], loader: Loader | None) -> Manifest:
    checked = {source.checked_against for source in (intent.base, intent.overlay) if source}
    return Manifest(
        tool=TOOL,
        base=intent.base.record,
        overlay=intent.overlay.record if intent.overlay else None,
        config=request.config,
        conversion=intent.selection.conversion,
        checked_against=next(kind for kind in _WEAKEST_FIRST if kind in checked),
        files=files,
        allow=request.allow,
        examined_for=str(loader or ""),
    )


_WEAKEST_FIRST: Final = (CheckedAgainst.NONE, CheckedAgainst.HUB, CheckedAgainst.LOCK)
