"""How long a server that refuses wants us to wait before it is asked again."""

import re
from collections.abc import Mapping
from typing import Final

_MOST_S: Final = 3600.0
# https://huggingface.co/docs/hub/rate-limits: the Hub says it in this one, with the seconds until it counts anew.
_RATE_LIMIT: Final = re.compile(r"\br=0\s*;\s*t=(\d{1,9})\b", re.ASCII)


def wait_s(headers: Mapping[str, str]) -> float:
    """Seconds, an hour at most; 0 where nothing that makes sense is asked for. Of `Retry-After`, else of `RateLimit`.

    A date is held against the answer's own: the server's clock need not be ours.
    """
    text = headers.get("Retry-After", "")
    if text.isdecimal():
        return min(float(text), _MOST_S)
    then = _time(text) if text else None
    now = None if then is None else _time(headers.get("Date", ""))
    if then is not None and now is not None:
        return max(0.0, min(then - now, _MOST_S))
    match = _RATE_LIMIT.search(headers.get("RateLimit", ""))
    return min(float(match[1]), _MOST_S) if match else 0.0


def _time(text: str) -> float | None:
    from email.utils import mktime_tz, parsedate_tz  # noqa: PLC0415 - dates are rare, and these take long to import

    try:
        parsed = parsedate_tz(text)
        return mktime_tz(parsed) if parsed else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
