"""Markdown tables, and the place between two markers of a document where they go."""

import re
from collections.abc import Sequence
from pathlib import Path

MISSING = "—"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One line for each row; no trailing newline."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def put(document: str, name: str, text: str) -> str:
    """The document with `text` between its `<!-- name: begin … -->` and `<!-- name: end -->`. Raises ValueError."""
    pattern = re.compile(rf"(<!-- {re.escape(name)}: begin[^>]*-->\n).*?(<!-- {re.escape(name)}: end -->)", re.DOTALL)
    if len(pattern.findall(document)) != 1:
        raise ValueError(
            f"the document should have one pair of markers <!-- {name}: begin --> and <!-- {name}: end -->"
        )
    return pattern.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", document)


def write(path: Path, name: str, text: str) -> None:
    path.write_text(put(path.read_text(), name, text))


def times(value: float | None) -> str:
    """`0.74x`."""
    return MISSING if value is None else f"{value:.2f}x"


def number(value: float | None, unit: str = "", digits: int = 2) -> str:
    """`1.50 s`."""
    return MISSING if value is None else f"{value:.{digits}f}{unit and ' '}{unit}"


def mib(size: float | None) -> str:
    """`344 MiB`, `0.3 MiB`."""
    if size is None:
        return MISSING
    return f"{size / 2**20:.1f} MiB" if 0 < size < 10 * 2**20 else f"{size / 2**20:.0f} MiB"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
