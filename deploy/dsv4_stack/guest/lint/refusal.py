"""A config.json that an engine would load wrongly is refused, before anything is brought for it."""

from pathlib import Path

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest import convert
from dsv4_stack.guest.files import reading
from dsv4_stack.guest.lint import report
from dsv4_stack.guest.loader import Loader


def refuse_file(path: Path, loader: Loader) -> None:
    """The same of a config.json that is there. Raises NotFoundError, Dsv4Error too."""
    with reading(path):
        content = path.read_bytes()
    refuse(content, str(path), loader)


def refuse(content: bytes, name: str, loader: Loader) -> None:
    """Nothing where the loader loads each layer as it is stored. Raises ConfigError with every problem."""
    found = report.examine(convert.parse(content, name), loader)
    problems = found.problems_of(loader)
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(
            f"{name} is none for {loader}:\n{lines}",
            "take another engine, revision or kind of config"
            + (", or leave mtp off" if loader.mtp and found.draft_problems else ""),
        )
