"""The Hub in one request, and the clock beside it."""

import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from helpers.scripted import Reply, Scripted, reply
from helpers.serving import serving

from dsv4_stack import assets, lock, pins, profile
from dsv4_stack.doctor import clock, hub, weights
from dsv4_stack.doctor.finding import Finding
from dsv4_stack.doctor.hub import Answer
from dsv4_stack.errors import ConfigError, Dsv4Error, NetworkError, NotAllowedError, NotFoundError
from dsv4_stack.plan import Plan, make_plan

pytest_plugins = ["helpers.hub_fixtures"]

BASE = "canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP"
REVISION = "0bbee82146562d9b7e4687483d348c760e61ef3b"
NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MEND = "check the network, $HF_ENDPOINT, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA)"


def plan_of(name: str) -> Plan:
    return make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock())


PLAN = plan_of("w4a8-tp2")


def lines(findings: Iterable[Finding]) -> list[str]:
    return [line for finding in findings for line in str(finding).splitlines()]


def dated(when: datetime, more: str = "") -> bytes:
    return reply(b"", f"Date: {format_datetime(when, usegmt=True)}\r\n{more}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, offline_environment: None) -> Iterator[Scripted]:  # noqa: ARG001
    with serving(Scripted()) as scripted:
        monkeypatch.setenv("HF_ENDPOINT", scripted.url.removesuffix("/file"))
        yield scripted


def asked(server: Scripted, answer: bytes) -> Answer:
    """What comes of one request."""
    server.replies = [Reply(content=answer)]
    found = hub.asked(PLAN, there=False)
    assert found is not None
    assert len(server.heads) == 1
    return found


def test_the_hub_shows_the_weights_and_the_time(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    answer = asked(server, dated(NOON))
    assert answer == Answer(date=NOON)
    head = server.heads[0].decode()
    assert head.startswith(f"HEAD /{BASE}/resolve/{REVISION}/config.json HTTP/1.1\r\n")
    assert "Authorization: Bearer hf_secret\r\n" in head
    url = server.url.removesuffix("/file")
    assert lines(hub.findings(PLAN, answer, there=False)) == [f"ok    Hub: {url} has {BASE}@{REVISION}"]


def test_what_a_cache_kept_is_older_by_its_age(server: Scripted) -> None:
    assert asked(server, dated(NOON, "Age: 600\r\n")) == Answer(date=NOON + timedelta(minutes=10))


@pytest.mark.parametrize(
    ("headers", "date"),
    [("", None), ("Date: yesterday\r\n", None), ("Date: Wed, 25 Nov 2026 12:00:00 -0000\r\n", NOON)],
)
def test_a_date_that_is_none(server: Scripted, headers: str, date: datetime | None) -> None:
    assert asked(server, reply(b"", headers)) == Answer(date=date)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("401 Unauthorized", NotAllowedError),
        ("403 Forbidden", NotAllowedError),
        ("404 Not Found", NotFoundError),
        ("503 Service Unavailable", NetworkError),
    ],
)
def test_a_refusal_keeps_its_exit_code(server: Scripted, status: str, kind: type[Dsv4Error]) -> None:
    answer = asked(server, reply(b"", status=status))
    (found,) = hub.findings(PLAN, answer, there=False)
    url = f"{server.url.removesuffix('/file')}/{BASE}/resolve/{REVISION}/config.json"
    assert (found.ok, found.found, found.error) == (False, f"{url}: the server answers {status[:3]}", kind)
    assert found.mend != ""


def test_a_wrong_token_is_not_sent(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf secret")
    assert asked(server, dated(NOON)) == Answer(date=NOON)
    assert b"Authorization" not in server.heads[0]


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, offline_environment: None) -> None:
    assert offline_environment is None
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (found,) = hub.findings(PLAN, hub.asked(PLAN, there=False), there=False)
    url = f"http://127.0.0.1:9/{BASE}/resolve/{REVISION}/config.json"
    assert (found.ok, found.found, found.error) == (False, f"{url}: ConnectionError: Connection refused", NetworkError)


def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, offline_environment: None) -> None:
    assert offline_environment is None
    monkeypatch.setattr(hub, "DEADLINE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        (found,) = hub.findings(PLAN, hub.asked(PLAN, there=False), there=False)
        connection, _ = silent.accept()
        connection.close()
    assert lines([found]) == ["WRONG Hub: no answer within 0.3 s", f"      {MEND}"]
    assert found.error is NetworkError


def test_an_endpoint_or_a_ca_bundle_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline_environment: None
) -> None:
    assert offline_environment is None
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    (found,) = hub.findings(PLAN, hub.asked(PLAN, there=False), there=False)
    assert (found.error, found.found) == (
        ConfigError,
        "HF_ENDPOINT should begin with http:// or https://, not be 'huggingface.co'",
    )
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    (found,) = hub.findings(PLAN, hub.asked(PLAN, there=False), there=False)
    assert lines([found]) == [
        (
            "WRONG Hub: the Hub cannot be asked: Could not find a suitable TLS CA certificate bundle, "
            f"invalid path: {tmp_path}/none.pem"
        ),
        f"      {MEND}",
    ]


def test_nobody_is_asked_where_the_weights_are_there(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = {"DSV4_WEIGHTS_DIR": str(tmp_path)}
    manifest = tmp_path / PLAN.profile.weights.name / ".dsv4" / "manifest.json"
    assert weights.are_there(PLAN, site) is False
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    assert weights.are_there(PLAN, site) is True
    for offline in ("", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        answer = hub.asked(PLAN, there=True)
        assert lines(hub.findings(PLAN, answer, there=True)) == ["ok    Hub: not asked: the weights are there"]
    assert server.heads == []


def test_offline_nobody_is_asked(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert lines(hub.findings(PLAN, hub.asked(PLAN, there=False), there=False)) == [
        "WARN  Hub: not asked: HF_HUB_OFFLINE is set, but the weights are still to be fetched",
        "      unset HF_HUB_OFFLINE, or bring a folder that dsv4 materialize made on another machine",
    ]
    assert server.heads == []


def test_the_demo_has_a_hub_of_its_own(server: Scripted) -> None:
    demo = plan_of("demo")
    assert list(hub.findings(demo, hub.asked(demo, there=False), there=False)) == []
    assert server.heads == []


CLOCK_MEND = "      set it: sudo timedatectl set-ntp true"


@pytest.mark.parametrize(
    ("ours", "hubs", "found"),
    [
        (NOON, NOON + timedelta(minutes=5), ["ok    clock: within 5 minutes of the Hub's"]),
        (NOON, NOON - timedelta(minutes=5), ["ok    clock: within 5 minutes of the Hub's"]),
        (
            NOON,
            NOON - timedelta(minutes=5, seconds=1),
            ["WRONG clock: 2026-11-25 12:00 UTC, 5 minutes ahead of the Hub's", CLOCK_MEND],
        ),
        (
            NOON,
            NOON + timedelta(hours=2),
            ["WRONG clock: 2026-11-25 12:00 UTC, 120 minutes behind the Hub's", CLOCK_MEND],
        ),
        (NOON, None, ["ok    clock: 2026-11-25, not held against another"]),
        (clock.PINNED, None, ["ok    clock: 2026-07-07, not held against another"]),
        (
            datetime(1970, 1, 1, tzinfo=UTC),
            None,
            ["WRONG clock: 1970-01-01, before 2026-07-07, when the default engine was made", CLOCK_MEND],
        ),
    ],
)
def test_the_clock(monkeypatch: pytest.MonkeyPatch, ours: datetime, hubs: datetime | None, found: list[str]) -> None:
    monkeypatch.setattr(clock, "now", lambda: ours)
    assert lines(clock.findings(hubs)) == found


def test_the_clock_of_this_machine_is_read_in_utc() -> None:
    assert clock.now().tzinfo is UTC
