"""What the engine would make of the config.json that is materialized."""

import os
from collections.abc import Iterator

from dsv4_stack import wheels
from dsv4_stack.doctor import weights
from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.convert import CONFIG_NAME, parse
from dsv4_stack.guest.lint import matching, report
from dsv4_stack.guest.patching.tree import Tree
from dsv4_stack.plan import Plan


def findings(plan: Plan, overrides: dict[str, str]) -> Iterator[Finding]:
    """Nothing before it is materialized, and for the demo."""
    path = weights.checkpoint(plan, overrides) / CONFIG_NAME
    if plan.profile.demo_hub or not os.path.isfile(path):  # noqa: PTH113 - False where it may not look
        return
    try:
        found = _linted(plan, path.read_bytes(), str(path))
    except ConfigError as error:
        yield wrong("config", error.message, error.next_step, ConfigError)
        return
    except OSError as error:
        yield warning("config", f"{path} cannot be read: {error.strerror}", "run it as the user of the weights")
        return
    problems = found.problems_of(plan.loader)
    if not problems:
        yield ok("config", found.summary())
        return
    mend = f"materialize {path} again" + (", or leave mtp off" if found.draft_problems else "")
    yield wrong("config", "; ".join(problems), mend, ConfigError)


def _linted(plan: Plan, content: bytes, name: str) -> report.Report:
    """Raises ConfigError."""
    tree = wheels.cached(plan.facts.wheel)
    return report.examine(parse(content, name), plan.loader, matching.of_tree(Tree(root=tree)) if tree else None)
