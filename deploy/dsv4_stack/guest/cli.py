"""Verbs: a table of names and modules; only the chosen verb's module is imported, so that `--help` costs nothing."""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dsv4_stack import __version__
from dsv4_stack.errors import Dsv4Error, UsageError


class Verb(NamedTuple):
    """`module` has `add_arguments(parser)` and `run(args)`."""

    module: str
    help: str


def dispatch(
    program: str, description: str, package: str, verbs: Mapping[str, Verb], argv: Sequence[str] | None = None
) -> int:
    """Run one verb; returns the exit code.

    A Dsv4Error is printed as fact and next step, and so is what nobody foresaw; `--debug` shows where it comes from.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or bool(os.environ.get("DSV4_DEBUG"))
    try:
        _run(program, description, package, verbs, [word for word in words if word != "--debug"])
    except Dsv4Error as error:
        if debug:
            _print_traceback()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; Python's own flush at exit would complain about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if debug:
            _print_traceback()
        print(
            f"error: unexpected: {type(error).__name__}: {error}\n"
            "  next: run it again with --debug, and report what it prints",
            file=sys.stderr,
        )
        return 1
    return 0


def _print_traceback() -> None:
    import traceback  # noqa: PLC0415 - every start would pay for it

    traceback.print_exc()


def _run(program: str, description: str, package: str, verbs: Mapping[str, Verb], words: list[str]) -> None:
    top = _top_parser(program, description, verbs)
    if not words or words[0].startswith("-"):
        top.parse_args(words or ["--help"])
        raise UsageError(f"{program}: no verb given", f"run: {program} --help")
    name, rest = words[0], words[1:]
    if name not in verbs:
        raise UsageError(f"there is no verb {name!r}", f"run: {program} --help")
    module = importlib.import_module(f"{package}.{verbs[name].module}")
    parser = argparse.ArgumentParser(prog=f"{program} {name}", description=verbs[name].help, allow_abbrev=False)
    module.add_arguments(parser)
    module.run(parser.parse_args(rest))


def _top_parser(program: str, description: str, verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    width = max(map(len, verbs))
    listed = "\n".join(f"  {name:{width}}  {verb.help}" for name, verb in verbs.items())
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} VERB [arguments]",
        description=f"{description}\n\nverbs:\n{listed}",
        epilog=f"`{program} VERB --help` explains a verb; --debug shows where an error comes from.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=True,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser
