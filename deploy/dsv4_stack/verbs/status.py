"""`dsv4 status`: what runs, and how well; `--watch` looks again and again."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dsv4_stack import engine
from dsv4_stack.errors import NotReadyError
from dsv4_stack.figures import figure, look, view
from dsv4_stack.figures.look import Look
from dsv4_stack.figures.span import Span, span
from dsv4_stack.guest import terminal
from dsv4_stack.plan import Plan
from dsv4_stack.verbs.common import add_json, add_profile, plan_of, print_json

EVERY_S: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """`span` is None where nothing runs that could be asked."""

    states: dict[str, engine.State]
    span: Span | None

    @property
    def figures(self) -> list[figure.Figure]:
        return figure.figures(self.span, self.states["serve"].restarts) if self.span else []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_profile(parser)
    add_json(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=EVERY_S,
        metavar="S",
        help=f"look again every S seconds (default: {EVERY_S:g}) until Ctrl-C; rates are then those between two looks",
    )


def _seconds(text: str) -> float:
    if not 0.2 <= float(text) <= 3600:
        raise ValueError
    return float(text)


def run(args: argparse.Namespace) -> None:
    """Exit code 10 where the stack does not serve, so that scripts can ask."""
    plan = plan_of(args)
    if args.watch is not None:
        _watch(plan, args.watch, as_json=args.json)
        return
    report = report_on(plan, None)
    if args.json:
        print_json(fields(report))
    else:
        print("\n".join(rows(report)))
    serve = report.states.get("serve")
    if serve is None or serve.health != "healthy":
        found = describe(serve) if serve else "not there"
        raise NotReadyError(f"{plan.project}: serve is {found}", f"run: dsv4 up --profile {plan.profile.name}")


def report_on(plan: Plan, before: Look | None) -> Report:
    states = engine.states(plan.project)
    seen = look.look(states.get("serve"))
    return Report(states=states, span=span(before, seen) if seen else None)


def _watch(plan: Plan, every_s: float, *, as_json: bool) -> None:
    """On a terminal the same lines are drawn again, elsewhere each look is a line. Ctrl-C is its end, and no error."""
    block = terminal.Block(sys.stdout) if terminal.can_draw(sys.stdout) and not as_json else None
    try:
        for report in _reports(plan, every_s):
            if block:
                block.draw(fitted(rows(report), terminal.size(sys.stdout).columns, terminal.size(sys.stdout).lines))
            else:
                print(json.dumps(fields(report), ensure_ascii=False) if as_json else line(report), flush=True)
    except KeyboardInterrupt:
        return


def _reports(plan: Plan, every_s: float) -> Iterator[Report]:
    before: Look | None = None
    while True:
        began = time.monotonic()
        report = report_on(plan, before)
        yield report
        before = report.span.after if report.span else None
        time.sleep(max(0.0, began + every_s - time.monotonic()))


def rows(report: Report) -> list[str]:
    table = [
        f"{service:13} {describe(state):24} {state.image}" for service, state in sorted(report.states.items())
    ] or ["nothing runs"]
    return table + (["", *view.rows(report.span, report.figures)] if report.span else [])


def line(report: Report) -> str:
    now = time.strftime("%H:%M:%S")
    if report.span:
        return f"{now} {view.line(report.span, report.figures)}"
    serve = report.states.get("serve")
    return f"{now} serve is {describe(serve) if serve else 'not there'}"


def fields(report: Report) -> list[dict[str, Any]]:
    """Every container; that of the engine with what the watch says, and the figures."""
    found = [dict(vars(state)) for _, state in sorted(report.states.items())]
    for entry in found if report.span else []:
        if entry["service"] == "serve" and report.span:
            entry["watch"] = dict(report.span.after.notice)
            entry["figures"] = view.fields(report.span, report.figures)
    return found


def fitted(lines: list[str], columns: int, height: int) -> list[str]:
    """As many and as much of them as a terminal shows; its cursor stands below the last."""
    plain = ["".join(letter if letter.isprintable() else "?" for letter in text) for text in lines[: height - 1]]
    return [text.encode("ascii", "backslashreplace").decode()[: columns - 1] for text in plain]


def describe(state: engine.State) -> str:
    """`running (healthy)`, `exited (0)`."""
    if state.status == "running":
        return f"running ({state.health})" if state.health else "running"
    return f"{state.status} ({state.exit_code})" if state.status == "exited" else state.status
