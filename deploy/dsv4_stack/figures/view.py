"""Figures as people and programs read them: rows, one line, JSON."""

from collections.abc import Sequence
from typing import Any

from dsv4_stack.figures.figure import Figure, Unit
from dsv4_stack.figures.span import Span
from dsv4_stack.guest.checkpoint.progress_view import duration

_WIDTH = 22


def rows(span: Span, figures: Sequence[Figure]) -> list[str]:
    """The state with its reason, then one row for each figure that there is; the last says over what time."""
    state = f"{'State':{_WIDTH}} {state_of(span)}"
    warnings = [f"{'Warning':{_WIDTH}} {_plain(warning)}" for warning in span.after.notice.get("warnings", ())]
    told = [f"{figure.name:{_WIDTH}} {_value(figure)}{_card(figure)}" for figure in figures if _value(figure)]
    return [state, *warnings, *told, f"{'':{_WIDTH}} {period(span)}"]


def line(span: Span, figures: Sequence[Figure]) -> str:
    told = [f"{figure.name} {_value(figure)}" for figure in figures if _value(figure)]
    return "; ".join([str(span.after.notice.get("state", "no watch")), *told, period(span)])


def fields(span: Span, figures: Sequence[Figure]) -> dict[str, Any]:
    """Seconds, tokens a second, shares of 1, watts, MiB. What has one value alone is that value."""
    named = {figure.name.lower().replace(" ", "_"): figure.parts for figure in figures}
    values = {name: parts[""] if list(parts) == [""] else dict(parts) for name, parts in named.items()}
    return {"span_s": round(span.seconds, 3), "since_start": span.before is None, **values}


def state_of(span: Span) -> str:
    notice = span.after.notice
    return f"{notice['state']}: {_plain(notice['reason'])}" if notice else "there is no watch"


def period(span: Span) -> str:
    return f"{'since the start,' if span.before is None else 'within the last'} {duration(span.seconds)}"


def _value(figure: Figure) -> str:
    """Nothing where no part has a value."""
    told = {name: number(value, figure.unit) for name, value in figure.parts.items() if value is not None}
    return ", ".join(f"{name} {text}".strip() for name, text in told.items())


def _card(figure: Figure) -> str:
    return f"  (model card: {number(figure.card, figure.unit)})" if figure.card is not None else ""


def number(value: float, unit: Unit) -> str:
    """As many digits as tell something."""
    if unit is Unit.SECONDS:
        return f"{value * 1000:,.{0 if value >= 0.01 or not value else 1}f} ms" if value < 10 else duration(value)
    if unit is Unit.SHARE:
        return f"{value:.0%}".replace("%", " %")
    text = f"{value:,.{1 if unit is Unit.TOKENS and 0 < value < 10 else 0}f}"
    return f"{text} {unit}".rstrip()


def _plain(text: str) -> str:
    """On one line, whatever the engine said."""
    return " ".join(str(text).split())
