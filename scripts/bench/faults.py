"""Run the materializer, and `hf download` beside it, into every fault that can be made on one machine.

Each scenario is a run with the fault and a run without it, after which the folder has to be bit-exact. Prints the
tables; the exit code is 1 where this project breaks a promise, 2 where nothing could be found out. Some scenarios need
root, for a disk of their own.
"""

import argparse
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from harness import checkpoint, host_faults, hub, interruptions, machine, matrix, server_faults, tables
from harness.contenders import DSV4, HF, Contender
from harness.hub import Hub
from harness.matrix import Row
from harness.scenarios import Outcome, Scenario, SkippedError, play
from harness.stage import REPO, Stage

MARKER: Final = "faults"
DOCUMENT: Final = Path(__file__).parents[2] / "docs/materialize.md"


def scenarios(kills: int, seed: int) -> list[Scenario]:
    return [*interruptions.all_of_them(kills, seed), *server_faults.all_of_them(), *host_faults.all_of_them()]


def rows(tool: Contender, chosen: Iterable[Scenario], server: Hub, place: Path) -> list[Row]:
    """A row for each name; neighbours of one name share it."""
    return [_row(name, list(group), tool, server, place) for name, group in groupby(chosen, lambda each: each.name)]


def _row(name: str, group: Sequence[Scenario], tool: Contender, server: Hub, place: Path) -> Row:
    try:
        outcomes = tuple(_play(scenario, tool, server, place) for scenario in group)
    except SkippedError as error:
        return Row(name=name, exits=group[0].exits, outcomes=(), skipped=str(error))
    print(f"{tool.name}: {name}: {', '.join(_short(outcome) for outcome in outcomes)}", file=sys.stderr, flush=True)
    return Row(name=name, exits=group[0].exits, outcomes=outcomes)


def _play(scenario: Scenario, tool: Contender, server: Hub, place: Path) -> Outcome:
    folder = Path(tempfile.mkdtemp(dir=place))
    (folder / "home").mkdir()
    wanted = checkpoint.read(place / "hub" / REPO, REPO)
    server.set()
    stage = Stage(
        hub=server,
        wanted=wanted,
        tool=tool,
        folder=folder,
        dest=folder / "dest",
        endpoint=server.url,
        revision=server.revision(REPO),
    )
    try:
        return play(scenario, stage)
    finally:
        shutil.rmtree(folder)


def _refuse_broken_tool(server: Hub, place: Path) -> None:
    """Raise ValueError where it fails without any fault: then no scenario would say anything."""
    outcome = _play(Scenario(name="no fault", exits=frozenset({0})), DSV4, server, place)
    if outcome.first.exit_code != 0 or outcome.problems:
        raise ValueError(f"{DSV4.name} ends with {outcome.first.exit_code} without a fault:\n{outcome.first.output}")


def _short(outcome: Outcome) -> str:
    return f"{outcome.first.exit_code} then {outcome.second.exit_code}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="the scenarios whose names it is found in")
    parser.add_argument("--tool", choices=["all", "dsv4"], default="all", help="dsv4: leave hf out")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="at so many points (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides where (default: 0)")
    parser.add_argument("--shard-mib", type=int, default=32, metavar="N", help="of each of four shards (default: 32)")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), metavar="DIR", help="on a disk")  # noqa: S108
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{DOCUMENT.name} as well")
    args = parser.parse_args()
    chosen = [each for each in scenarios(args.kills, args.seed) if re.search(args.only, each.name)]
    place = Path(tempfile.mkdtemp(prefix="dsv4-faults-", dir=args.place))
    try:
        checkpoint.write(place / "hub", REPO, shards=server_faults.SHARDS, shard_bytes=args.shard_mib << 20)
        with hub.serving(place / "hub", place / "hub.log") as server:
            _refuse_broken_tool(server, place)
            ours = rows(DSV4, chosen, server, place)
            others = {HF.name: rows(HF, chosen, server, place)} if args.tool == "all" else {}
    finally:
        shutil.rmtree(place)
    command = shlex.join([".venv/bin/python", "scripts/bench/faults.py", *sys.argv[1:]])
    text = matrix.as_markdown(ours, others, machine.line("curl", packages=("huggingface-hub",)), command)
    print(text)
    if args.write:
        tables.write(DOCUMENT, MARKER, text)
    broken = matrix.failures(ours)
    print("\n".join(broken) or "every promise holds", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
