"""Put the stack, and a plain `vllm serve` container beside it, into every fault that can be made on one machine.

Both run the same engine, a stand-in that misbehaves on demand (tests/standin/vllm.py), in real containers. Prints the
table of docs/serving.md; the exit code is 1 where the stack did not notice, 2 where nothing could be found out.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # the stand-in, and what starts it, are the tests' own

from harness import machine, tables  # noqa: E402
from harness.serving import scenarios, subjects  # noqa: E402
from harness.serving.scenarios import Place, Row  # noqa: E402
from harness.serving.timeline import Timeline  # noqa: E402
from helpers.images import base_image, build_image, remove_image  # noqa: E402
from helpers.standin import build_standin  # noqa: E402

MARKER: Final = "faults"
DOCUMENT: Final = ROOT / "docs/serving.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="the faults whose names it is found in")
    parser.add_argument("--leave-daemon", action="store_true", help="do not restart the Docker daemon")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{DOCUMENT.name} as well")
    args = parser.parse_args()
    with _place() as place:
        rows = [_say(play(place)) for name, play in _plays(args) if re.search(args.only, name)]
    command = shlex.join([".venv/bin/python", "scripts/bench/serving.py", *sys.argv[1:]])
    text = as_markdown(rows, machine.line("docker"), command)
    print(text)
    if args.write:
        tables.write(DOCUMENT, MARKER, text)
    watched = [(row, row.ours) for row in rows if isinstance(row.ours, Timeline)]
    blind = [row.name for row, ours in watched if row.is_fault and ours.noticed_s is None]
    print("\n".join(f"not noticed: {name}" for name in blind) or "every fault was noticed", file=sys.stderr)
    return 1 if blind else 0


def _plays(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[Place], Row]]]:
    for scenario in scenarios.WATCHED:
        yield scenario.name, lambda place, scenario=scenario: scenarios.play(scenario, place)
    for special in scenarios.SPECIAL:
        yield special.__name__, special
    if not args.leave_daemon:
        yield "restarted_daemon", scenarios.restarted_daemon


@contextmanager
def _place() -> Iterator[Place]:
    """The image of the stand-in, and weights that the real materializer made."""
    folder = Path(tempfile.mkdtemp(prefix="dsv4-serving-"))
    (folder / "context").mkdir()
    under = build_standin(base_image(), "0.23.0", folder / "context")
    image = under.replace("vllm-0.23.0", "serving-bench")
    try:
        contexts = {"guest": "deploy/dsv4_stack"}
        build_image(
            "docker/serve", tag=image, dockerfile="Dockerfile.v0.23.0", args={"BASE_IMAGE": under}, contexts=contexts
        )
        with subjects.ours(image, folder, {}) as it:
            if problem := it.build("materialize") or it.start():
                raise ValueError(problem)
        yield Place(image=image, folder=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for tag in (image, under):
            remove_image(tag)


def _say(row: Row) -> Row:
    print(f"{row.name}\n  plain: {_cell(row.plain)}\n  ours:  {_cell(row.ours)}", file=sys.stderr, flush=True)
    return row


def _cell(found: Timeline | str) -> str:
    return found if isinstance(found, str) else f"{found.story}; users: {found.users}"


def _noticed(row: Row, found: Timeline | str) -> str:
    if isinstance(found, str) or not row.is_fault:
        return tables.MISSING
    return "never" if found.noticed_s is None else f"{found.noticed_s:.1f}"


def as_markdown(rows: list[Row], made_with: str, command: str) -> str:
    header = ["fault", "`vllm serve` alone", "noticed, s", "the stack", "noticed, s"]
    seen = [
        [row.name, _cell(row.plain), _noticed(row, row.plain), _cell(row.ours), _noticed(row, row.ours)] for row in rows
    ]
    words = [[row.name, row.ours.said or tables.MISSING] for row in rows if isinstance(row.ours, Timeline)]
    return "\n\n".join(
        [
            f"Made with `{command}`. {made_with}",
            tables.table(header, seen),
            "### What the stack's log said last",
            tables.table(["fault", "said"], words),
        ]
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, AssertionError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
