"""The Hub: whether it answers and shows the weights, in one request, where they are still to be fetched."""

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.errors import ConfigError, Dsv4Error, NetworkError
from dsv4_stack.guest import access, http, hub
from dsv4_stack.guest.convert import CONFIG_NAME
from dsv4_stack.lock import repos_of
from dsv4_stack.plan import Plan

SUBJECT: Final = "Hub"
# For all of it: names, proxy, TLS, redirects. http's own limits are per step, and looking a name up has none.
DEADLINE_S = 15.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`date` is the Hub's clock when it answered, `error` why it did not."""

    date: datetime | None = None
    error: Dsv4Error | None = None


def asked(plan: Plan, *, there: bool) -> Answer | None:
    """None where nobody is asked: the weights are there, the demo has a Hub of its own, or $HF_HUB_OFFLINE is set."""
    if there or not repos_of(plan.checkpoint) or access.is_offline():
        return None
    base = plan.checkpoint.base
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    # A thread that is left behind ends with its request, at the latest with this program.
    asking = (base.repo, base.revision or base.branch, answers)
    threading.Thread(target=_ask, args=asking, daemon=True).start()
    try:
        return answers.get(timeout=DEADLINE_S)
    except queue.Empty:
        return Answer(error=NetworkError(f"no answer within {DEADLINE_S:g} s", _mend()))


def findings(plan: Plan, answer: Answer | None, *, there: bool) -> Iterator[Finding]:
    if not repos_of(plan.checkpoint):
        return
    if answer is None:
        yield _not_asked(there=there)
    elif answer.error:
        yield wrong(SUBJECT, answer.error.message, answer.error.next_step, type(answer.error))
    else:
        yield ok(SUBJECT, f"{http.shown(access.endpoint())} has {plan.checkpoint.base.reference}")


def _not_asked(*, there: bool) -> Finding:
    if there:
        return ok(SUBJECT, "not asked: the weights are there")
    return warning(
        SUBJECT,
        "not asked: HF_HUB_OFFLINE is set, but the weights are still to be fetched",
        "unset HF_HUB_OFFLINE, or bring a folder that dsv4 materialize made on another machine",
    )


def _ask(repo: str, revision: str, answers: "queue.SimpleQueue[Answer]") -> None:
    try:
        headers = http.head(hub.resolve_url(repo, revision, CONFIG_NAME), _bearer())
    except Dsv4Error as error:
        answers.put(Answer(error=error))
    except (OSError, ValueError) as error:  # a CA bundle that is not there, or an endpoint that is no name
        answers.put(Answer(error=NetworkError(f"the Hub cannot be asked: {error}", _mend())))
    else:
        answers.put(Answer(date=_date(headers)))


def _bearer() -> dict[str, str]:
    """No header where the token is wrong, which is a finding of its own."""
    try:
        return access.bearer()
    except ConfigError:
        return {}


def _date(headers: Mapping[str, str]) -> datetime | None:
    """What a cache on the way kept back is older by its Age: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3."""
    age = headers.get("Age", "")
    try:
        sent = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    return sent.replace(tzinfo=sent.tzinfo or UTC) + timedelta(seconds=int(age) if age.isdecimal() else 0)


def _mend() -> str:
    return "check the network, $HF_ENDPOINT, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA)"
