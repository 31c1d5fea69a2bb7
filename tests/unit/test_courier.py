"""Answers that no well-meaning server gives, and what becomes of the file; what the end of a run keeps from others."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.scripted import CHUNKED, Reply, Scripted, reply
from helpers.serving import serving

from dsv4_stack.errors import IntegrityError, NetworkError
from dsv4_stack.guest.digests import Advance, Digests, of_bytes
from dsv4_stack.guest.download import crew
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.crew import fetch_all
from dsv4_stack.guest.download.download import Download, Quiet
from dsv4_stack.guest.download.job import Job, open_job
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import SupersededError

pytest_plugins = ["helpers.hub_fixtures"]
pytestmark = pytest.mark.usefixtures("offline_environment")

CONTENT = b"0123456789"
LIMITS = Limits(jobs=1, stall_s=5, patience_s=20, progress=1, backoff_s=0.01, backoff_most_s=0.02, block=8)
# Where a refusal is to be waited for.
HASTY = replace(LIMITS, patience_s=0.2)


@pytest.fixture
def download(tmp_path: Path) -> Callable[[str], Download]:
    def make(url: str) -> Download:
        return Download(
            path="file",
            address=Address(url, {}),
            target=tmp_path / "file",
            size=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            git_sha1=None,
        )

    return make


def fetched(download: Download, limits: Limits = LIMITS) -> list[Digests]:
    done: list[Digests] = []
    fetch_all([download], limits, Quiet(), lambda _, found: done.append(found))
    return done


@pytest.mark.parametrize("location", ["http://[::1/x", "http://127.0.0.1:99999/", "https:///x"])
def test_a_redirect_to_no_address_is_a_trouble_on_the_way(download: Callable[[str], Download], location: str) -> None:
    redirect = reply(b"", f"Location: {location}\r\n", status="302 Found")
    with serving(Scripted(redirect, reply(CONTENT))) as server:
        assert fetched(download(server.url)) == [replace(of_bytes(CONTENT), git_sha1="")]
    with serving(Scripted(*[redirect] * 99)) as server, pytest.raises(NetworkError) as caught:
        fetched(download(server.url), HASTY)
    assert caught.value.message == (
        "no progress for 0.2 s, 0 bytes of 10 bytes came; "
        "the last trouble was: file: it redirects to something that is no address"
    )


WHOLE = b"a\r\n" + CONTENT + b"\r\n0\r\n\r\n"


def test_a_server_without_parts_or_lengths_begins_again(download: Callable[[str], Download]) -> None:
    """Also where an earlier answer was cut in its middle."""
    cut = Reply(content=reply(b"a\r\n" + CONTENT[:6], CHUNKED, length=-1), closes=True)
    with serving(Scripted(cut, *[reply(WHOLE, CHUNKED, length=-1)] * 2)) as server:
        assert fetched(download(server.url)) == [replace(of_bytes(CONTENT), git_sha1="")]


def test_a_page_without_a_length_costs_nothing(download: Callable[[str], Download]) -> None:
    cut = Reply(content=reply(CONTENT[:6], length=len(CONTENT)), closes=True)
    page = reply(b"4\r\n<p>\n\r\n0\r\n\r\n", f"Content-Type: text/html; charset=utf-8\r\n{CHUNKED}", length=-1)
    with serving(Scripted(cut, *[page] * 99)) as server, pytest.raises(NetworkError) as caught:
        fetched(download(server.url), HASTY)
    assert caught.value.message == (
        "no progress for 0.2 s, 6 bytes of 10 bytes came; the last trouble was: file: the server sends a page of HTML"
    )


def test_an_answer_that_goes_on_and_on_is_left_when_there_is_enough(download: Callable[[str], Download]) -> None:
    """It is still open when the file is whole."""
    endless = reply(b"a\r\n" + CONTENT + b"\r\n" + b"6\r\nbeyond\r\n", CHUNKED, length=-1)
    with serving(Scripted(endless)) as server:
        assert fetched(download(server.url)) == [replace(of_bytes(CONTENT), git_sha1="")]
        assert len(server.heads) == 1


def test_an_answer_of_no_stated_length_that_ends_early_is_asked_for_the_rest(
    download: Callable[[str], Download],
) -> None:
    half = Reply(content=reply(CONTENT[:4], length=-1), closes=True)
    rest = reply(CONTENT[4:], "Content-Range: bytes 4-9/10\r\n", status="206 Partial Content")
    with serving(Scripted(half, rest)) as server:
        assert fetched(download(server.url)) == [replace(of_bytes(CONTENT), git_sha1="")]
        assert server.heads[1].endswith(b"\r\nRange: bytes=4-9\r\n")


def test_a_proxy_that_wants_a_login_is_not_got_around_by_another_way(download: Callable[[str], Download]) -> None:
    asked: list[Path] = []

    def otherwise(target: Path, _advance: Advance) -> None:
        asked.append(target)

    with serving(Scripted(reply(b"", status="407 Proxy Authentication Required"))) as server:
        with pytest.raises(NetworkError) as caught:
            fetched(replace(download(server.url), otherwise=otherwise))
        assert caught.value.message == f"{server.url}: the server answers 407"
    assert asked == []


@pytest.fixture
def team(download: Callable[[str], Download]) -> tuple[crew._Crew, Job, list[Digests]]:
    """A crew with one file open, and no thread at work yet."""
    done: list[Digests] = []
    asked = download("http://127.0.0.1:9/file")
    made = crew._Crew([asked], LIMITS, Quiet(), lambda _, found: done.append(found))
    job = open_job(asked, LIMITS)
    made._jobs.append(job)
    return made, job, done


def test_several_connections_may_find_fault_with_one_attempt(team: tuple[crew._Crew, Job, list[Digests]]) -> None:
    made, job, _ = team
    for _ in range(3):
        made._start_again(job, IntegrityError("wrong", "again"), 0)
    assert (job.partial.generation, job.failures, job.is_over) == (1, 1, False)
    with pytest.raises(IntegrityError, match="wrong"):
        made._start_again(job, IntegrityError("wrong", "again"), 1)
    assert list(job.download.target.parent.iterdir()) == []
    made.end()


def test_a_host_that_is_to_be_left_alone_is_not_asked(download: Callable[[str], Download]) -> None:
    with serving(Scripted(reply(CONTENT))) as server:
        made = crew._Crew([download(server.url)], replace(LIMITS, patience_s=5), Quiet(), lambda *_: None)
        made._courier.pauses.begin(server.url, 0.3)
        started = time.monotonic()
        made.work()
        made.end()
        assert time.monotonic() - started >= 0.3
        assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("status", "headers", "least_s"),
    [("429 Too Many", "Retry-After: 60\r\n", 50), ("503 Busy", "Retry-After: 60\r\n", 50), ("500 Ill", "", 0)],
)
def test_what_one_connection_is_told_to_wait_all_wait(
    download: Callable[[str], Download], status: str, headers: str, least_s: float
) -> None:
    with serving(Scripted(*[reply(b"", headers, status=status)] * 99)) as server:
        made = crew._Crew([download(server.url)], HASTY, Quiet(), lambda *_: None)
        with pytest.raises(NetworkError):
            made.work()
        made.end()
        assert least_s <= made._courier.pauses.left_s(server.url) <= 60
        assert made._courier.pauses.is_calm == (status == "500 Ill")


def test_no_connections_are_opened_for_a_host_that_is_too_busy(
    team: tuple[crew._Crew, Job, list[Digests]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = team
    opened: list[int] = []
    monkeypatch.setattr(made, "_open_connections", opened.append)
    monkeypatch.setattr(made, "_limits", replace(LIMITS, jobs=9))
    made._hands = 4
    made._looked = -1.0
    made._open_more_connections()
    assert opened == [4]
    made._courier.pauses.begin("http://127.0.0.1:9/file", 0)
    made._looked = -1.0
    made._open_more_connections()
    assert opened == [4]
    made.end()


def test_nothing_is_handed_over_once_the_run_has_ended(team: tuple[crew._Crew, Job, list[Digests]]) -> None:
    made, job, done = team
    piece = job.partial.take()
    assert piece
    job.partial.write(piece, CONTENT)
    assert job.partial.give_back(piece)
    found = job.partial.finish()
    made.end()
    with pytest.raises(crew._StoppedError):
        made._hand_over(job, found)
    with pytest.raises(SupersededError):
        made._finish(job)
    assert done == []
    assert sorted(path.name for path in job.download.target.parent.iterdir()) == ["file", "file.marks"]
