"""Fetching over several connections: every trouble on the way, what comes of it, and what it costs."""

import hashlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.sockets import black_hole, closed_port

from dsv4_stack.errors import Dsv4Error, IntegrityError, NetworkError, NoSpaceError, NotAllowedError, NotFoundError
from dsv4_stack.guest.demo.faults import PAGE, Faults, Redirect, Refusal
from dsv4_stack.guest.demo.server import DemoHub
from dsv4_stack.guest.digests import Digests
from dsv4_stack.guest.download import crew, space
from dsv4_stack.guest.download.address import Address
from dsv4_stack.guest.download.download import Download
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.files import amount

pytest_plugins = ["helpers.hub_fixtures"]

KIB = 1 << 10
LIMITS = Limits(
    jobs=6,
    first_jobs=6,
    connect_s=5,
    stall_s=5,
    trickle=4 * KIB,
    patience_s=20,
    progress=1,
    segment=64 * KIB,
    least_segment=64 * KIB,
    block=16 * KIB,
    least_block=16 * KIB,
    sync=128 * KIB,
    backoff_s=0.01,
    backoff_most_s=0.05,
)
# Where silence or a refusal is to be waited for.
HASTY = replace(LIMITS, connect_s=0.15, stall_s=0.15, patience_s=0.5)
# What stalls then stays so until the run ends.
PATIENT = replace(LIMITS, stall_s=10, patience_s=0.3)
SIZES = {"a.bin": 300 * KIB, "b.bin": 64 * KIB, "c.bin": 64 * KIB + 1, "d.bin": 1, "e.bin": 0}


@dataclass
class Heard:
    """A listener that remembers."""

    said: list[tuple[str, str]] = field(default_factory=list)
    came: Counter[str] = field(default_factory=Counter)
    reused: Counter[str] = field(default_factory=Counter)

    def say(self, event: str, text: str, **_fields: object) -> None:
        self.said.append((event, text))

    def advance(self, path: str, count: int) -> None:
        self.came[path] += count

    def reuse(self, path: str, count: int) -> None:
        self.reused[path] += count

    def retreat(self, path: str) -> None:
        self.came[path] = self.reused[path] = 0


@dataclass(kw_only=True)
class Remote:
    """A Hub with one repository of random files, and a folder to fetch to."""

    server: DemoHub
    root: Path
    target: Path
    heard: Heard = field(default_factory=Heard)

    def content(self, path: str) -> bytes:
        return (self.root / "org/base" / path).read_bytes()

    def download(self, path: str, **changes: Any) -> Download:  # noqa: ANN401 - of any field
        content = self.content(path)
        fields: dict[str, Any] = {
            "path": path,
            "address": Address(f"{self.server.url}/org/base/resolve/main/{path}", {"Authorization": "Bearer hf_x"}),
            "target": self.target / path,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "git_sha1": None,
        }
        return Download(**(fields | changes))

    def fetch(self, *downloads: Download, limits: Limits = LIMITS) -> dict[str, Digests]:
        found = {}
        crew.fetch_all(
            downloads, limits, self.heard, lambda download, digests: found.__setitem__(download.path, digests)
        )
        return found

    def fetch_paths(self, *paths: str, limits: Limits = LIMITS) -> dict[str, Digests]:
        return self.fetch(*[self.download(path) for path in paths or SIZES], limits=limits)

    def is_right(self, *paths: str) -> bool:
        return all((self.target / path).read_bytes() == self.content(path) for path in paths or SIZES)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.iterdir())


@pytest.fixture
def remote(tmp_path: Path, offline_environment: None) -> Iterator[Remote]:
    assert offline_environment is None
    root = tmp_path / "hub"
    (root / "org/base").mkdir(parents=True)
    for path, size in SIZES.items():
        (root / "org/base" / path).write_bytes(hashlib.shake_256(path.encode()).digest(size))
    before = set(threading.enumerate())
    with DemoHub(root, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Remote(server=server, root=root, target=tmp_path / "target")
        server.shutdown()
        thread.join()
    ours = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("connection", "flush"))]
    for thread in ours:
        thread.join(5)
        assert not thread.is_alive()


def failure(work: Callable[[], object], kind: type[Dsv4Error]) -> str:
    with pytest.raises(kind) as caught:
        work()
    assert type(caught.value) is kind
    return caught.value.message


def test_all_files_come_whole_and_nothing_else_is_left(remote: Remote) -> None:
    found = remote.fetch_paths()
    assert remote.is_right()
    assert remote.left() == sorted(SIZES)
    assert {path: digests.size for path, digests in found.items()} == SIZES
    assert remote.heard.came == Counter(SIZES)
    assert remote.heard.said == []


def test_a_large_file_comes_over_several_connections_in_parts(remote: Remote) -> None:
    # All are connected before the first has its answer.
    remote.server.faults.latency_s = 0.2
    remote.fetch_paths("a.bin")
    assert remote.server.peak > 1
    assert remote.server.requests == ["GET /org/base/resolve/main/a.bin"] * 5


def test_one_connection_is_enough_and_is_kept(remote: Remote) -> None:
    remote.fetch_paths(limits=replace(LIMITS, jobs=1))
    assert remote.is_right()
    assert remote.server.connections == 1


def test_a_file_of_which_only_the_git_hash_is_known(remote: Remote) -> None:
    content = remote.content("b.bin")
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    found = remote.fetch(remote.download("b.bin", sha256=None, git_sha1=blob))
    assert found["b.bin"].git_sha1 == blob
    remote.server.faults.flip.add("*")
    message = failure(lambda: remote.fetch(remote.download("b.bin", sha256=None, git_sha1=blob)), IntegrityError)
    assert message.endswith(f"{blob} was promised")


def test_what_came_of_a_broken_run_is_not_fetched_again(remote: Remote) -> None:
    remote.server.faults.stall["*"] = 24 * KIB
    message = failure(lambda: remote.fetch_paths("a.bin", limits=PATIENT), NetworkError)
    before = remote.heard.came["a.bin"]
    assert message == f"no progress for 0.3 s, {amount(before)} of 300.0 KiB came"
    assert remote.left() == ["a.bin", "a.bin.marks"]
    remote.server.faults.stall.clear()
    remote.server.sent.clear()
    remote.heard = Heard()
    remote.fetch_paths("a.bin")
    assert remote.is_right("a.bin")
    assert remote.heard.reused == Counter({"a.bin": before})
    assert remote.server.sent["org/base/a.bin"] == SIZES["a.bin"] - before


def test_a_part_that_was_spoilt_meanwhile_is_found_out_and_the_file_fetched_again(remote: Remote) -> None:
    remote.server.faults.stall["*"] = 24 * KIB
    failure(lambda: remote.fetch_paths("a.bin", limits=PATIENT), NetworkError)
    remote.server.faults.stall.clear()
    with (remote.target / "a.bin").open("r+b") as file:
        file.write(b"\0" * KIB)
    remote.fetch_paths("a.bin")
    assert remote.is_right("a.bin")
    assert [text.partition(": ")[2][:9] for event, text in remote.heard.said if event == "note"] == ["sha256 is"]


def test_a_file_of_another_size_is_no_start(remote: Remote) -> None:
    remote.server.faults.stall["*"] = 24 * KIB
    failure(lambda: remote.fetch_paths("a.bin", limits=PATIENT), NetworkError)
    remote.server.faults.stall.clear()
    os.truncate(remote.target / "a.bin", 5 * KIB)
    remote.heard = Heard()
    remote.fetch_paths("a.bin")
    assert remote.is_right("a.bin")
    assert remote.heard.reused == Counter()


def test_wrong_bytes_once_are_fetched_again(remote: Remote) -> None:
    remote.server.faults.flip_times["org/base/b.bin"] = 1
    remote.fetch_paths()
    assert remote.is_right()
    assert remote.heard.came == Counter(SIZES)


def test_wrong_bytes_twice_end_it_and_leave_nothing(remote: Remote) -> None:
    remote.server.faults.flip.add("org/base/b.bin")
    message = failure(lambda: remote.fetch_paths("b.bin"), IntegrityError)
    good = hashlib.sha256(remote.content("b.bin")).hexdigest()
    url = f"{remote.server.url}/org/base/resolve/main/b.bin"
    assert message.startswith(f"{url}: sha256 is ")
    assert message.endswith(f", {good} was promised")
    assert remote.left() == []


def test_bodies_that_end_early_are_gone_on_with(remote: Remote) -> None:
    remote.server.faults.cut_times["*"] = 9
    remote.fetch_paths()
    assert remote.is_right()
    assert remote.heard.came == Counter(SIZES)
    # What was under way when the server hung up may be lost.
    assert sum(remote.server.sent.values()) <= sum(SIZES.values()) + 9 * LIMITS.block


def test_a_connection_that_stalls_is_opened_anew(remote: Remote) -> None:
    remote.server.faults.stall_times["org/base/a.bin"] = 2
    remote.server.faults.stall["org/base/a.bin"] = 20 * KIB
    remote.fetch_paths(limits=replace(LIMITS, stall_s=0.5))
    assert remote.is_right()
    assert [event for event, _ in remote.heard.said] == ["retry"]


def test_a_connection_that_drips_is_opened_anew_and_a_server_that_only_drips_ends_it(remote: Remote) -> None:
    remote.server.faults.drip["*"] = 2000
    limits = replace(HASTY, progress=64 * KIB)
    message = failure(lambda: remote.fetch_paths("a.bin", limits=limits), NetworkError)
    assert message.startswith("no progress for 0.5 s, ")
    assert re.search(r"bytes came in \d+ s", message)


@pytest.mark.parametrize("status", [408, 416, 429, 500, 502, 503, 504, 522])
def test_what_goes_by_is_waited_for(remote: Remote, status: int) -> None:
    remote.server.faults.refuse["org/base/b.bin"] = Refusal(status=status, times=3)
    remote.fetch_paths("b.bin")
    assert remote.is_right("b.bin")
    event, text = remote.heard.said[0]
    assert (event, text.partition(";")[0]) == ("retry", f"b.bin: the server answers {status}")


def test_the_server_may_say_how_long(remote: Remote) -> None:
    remote.server.faults.refuse["org/base/b.bin"] = Refusal(status=503, retry_after="3600")
    message = failure(lambda: remote.fetch_paths("b.bin", limits=HASTY), NetworkError)
    assert message == (
        "no progress for 0.5 s, 0 bytes of 64.0 KiB came; the last trouble was: b.bin: the server answers 503"
    )
    assert remote.heard.said == [("retry", "b.bin: the server answers 503; again in 3600.0 s")]
    assert len(remote.server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotAllowedError), (403, NotAllowedError), (404, NotFoundError), (400, NetworkError)],
)
def test_what_does_not_go_by_ends_it_at_once(remote: Remote, status: int, kind: type[Dsv4Error]) -> None:
    remote.server.faults.refuse["org/base/b.bin"] = Refusal(status=status, code="Word")
    url = f"{remote.server.url}/org/base/resolve/main/b.bin"
    assert failure(remote.fetch_paths, kind) == f"{url}: the server answers {status} (Word)"


def test_a_signed_address_is_asked_for_once_and_again_when_it_expires(remote: Remote) -> None:
    remote.server.faults.redirect = Redirect(uses=2)
    remote.server.faults.redirect_host = "localhost"
    remote.fetch_paths("a.bin", limits=replace(LIMITS, jobs=1))
    assert remote.is_right("a.bin")
    asked = [request for request in remote.server.requests if "/resolve/" in request]
    assert len(asked) == 3
    assert remote.server.authorized_cdn == 0


def test_a_token_stays_with_the_host_that_it_is_for(remote: Remote) -> None:
    remote.server.faults.redirect = Redirect()
    remote.fetch_paths("b.bin")
    assert remote.server.authorized_cdn == 1
    remote.server.faults.redirect_host = "localhost"
    remote.fetch_paths("c.bin")
    assert remote.server.authorized_cdn == 1


def test_a_signed_address_that_never_works_ends_it(remote: Remote) -> None:
    remote.server.faults.redirect = Redirect(uses=0)
    url = f"{remote.server.url}/org/base/resolve/main/b.bin"
    assert failure(lambda: remote.fetch_paths("b.bin"), NotAllowedError) == f"{url}: the server answers 403"


def test_a_server_that_sends_no_parts_sends_it_all_over_one_connection(remote: Remote) -> None:
    remote.server.faults.no_ranges = True
    remote.fetch_paths()
    assert remote.is_right()
    assert remote.heard.came == Counter(SIZES)
    remote.server.faults.cut_times["*"] = 2
    (remote.target / "a.bin").unlink()
    remote.fetch_paths("a.bin")
    assert remote.is_right("a.bin")


def test_a_server_that_sends_all_of_it_again_and_never_to_its_end_ends_it(remote: Remote) -> None:
    """What comes again and again is no progress."""
    remote.server.faults.no_ranges = True
    remote.server.faults.cut.add("org/base/a.bin")
    limits = replace(LIMITS, progress=64 * KIB, patience_s=1.5)
    message = failure(lambda: remote.fetch_paths(limits=limits), NetworkError)
    assert re.fullmatch(
        r"no progress for 1\.5 s, \d+\.\d KiB of 428\.0 KiB came; "
        r"the last trouble was: a\.bin: the answer ended \d+ bytes too early",
        message,
    )
    assert remote.is_right("b.bin", "c.bin", "d.bin", "e.bin")


def test_a_file_that_is_fetched_again_need_not_be_as_far_as_before_in_time(remote: Remote) -> None:
    """Its first attempt was wrong, and the second takes longer than the patience."""
    remote.server.faults.flip_times["org/base/a.bin"] = 1

    def say(event: str, text: str, **_fields: object) -> None:
        if "is fetched again" in text:
            remote.server.faults.drip["*"] = 120 * KIB
        remote.heard.said.append((event, text))

    remote.heard.say = say  # type: ignore[method-assign]
    started = time.monotonic()
    remote.fetch_paths("a.bin", limits=replace(LIMITS, jobs=1, first_jobs=1, stall_s=10, patience_s=1.5))
    assert time.monotonic() - started > 1.5
    assert remote.is_right("a.bin")


def half(remote: Remote, path: str = "a.bin") -> int:
    """A run that breaks off; the bytes that it leaves."""
    remote.server.faults.stall["*"] = 24 * KIB
    failure(lambda: remote.fetch_paths(path, limits=PATIENT), NetworkError)
    remote.server.faults.stall.clear()
    before, remote.heard = remote.heard.came[path], Heard()
    assert 0 < before < SIZES[path]
    remote.server.sent.clear()
    return before


def comes_from(remote: Remote, before: int, path: str = "a.bin") -> None:
    """The next run fetches what is missing and no more."""
    remote.server.faults = Faults()
    remote.server.sent.clear()
    remote.heard = Heard()
    remote.fetch_paths(path)
    assert remote.is_right(path)
    assert remote.heard.reused == Counter({path: before})
    assert remote.server.sent[f"org/base/{path}"] == SIZES[path] - before


def test_another_range_than_asked_for_is_not_believed_and_spoils_nothing(remote: Remote) -> None:
    before = half(remote)
    remote.server.faults.wrong_range.add("*")
    message = failure(lambda: remote.fetch_paths("a.bin", limits=HASTY), NetworkError)
    assert message.startswith(f"no progress for 0.5 s, {amount(before)} of 300.0 KiB came; the last trouble was: ")
    assert ": a.bin: the server sends bytes " in message
    assert message.endswith("/307200 were promised")
    comes_from(remote, before)


def test_a_page_instead_of_the_file_spoils_nothing(remote: Remote) -> None:
    before = half(remote)
    remote.server.faults.page.add("*")
    message = failure(lambda: remote.fetch_paths("a.bin", limits=HASTY), NetworkError)
    assert message == (
        f"no progress for 0.5 s, {amount(before)} of 300.0 KiB came; "
        f"the last trouble was: a.bin: the server sends {len(PAGE)} bytes, 307200 bytes were promised"
    )
    comes_from(remote, before)


def test_a_page_instead_of_the_file_is_got_over_when_it_goes_by(remote: Remote) -> None:
    before = half(remote)
    remote.server.faults.page.add("*")

    def say(event: str, text: str, **_fields: object) -> None:
        remote.server.faults.page.clear()
        remote.heard.said.append((event, text))

    remote.heard.say = say  # type: ignore[method-assign]
    remote.fetch_paths("a.bin")
    assert remote.is_right("a.bin")
    assert remote.server.sent["org/base/a.bin"] == SIZES["a.bin"] - before


def test_another_length_than_promised_is_not_fetched(remote: Remote) -> None:
    message = failure(
        lambda: remote.fetch(remote.download("b.bin", size=SIZES["b.bin"] - 5), limits=HASTY), NetworkError
    )
    assert message.endswith(": b.bin: the server sends 65536 bytes, 65531 bytes were promised")


def test_a_refusal_that_no_other_way_gets_around_spoils_nothing(remote: Remote) -> None:
    before = half(remote)
    remote.server.faults.refuse["*"] = Refusal(status=403)

    def no_other_way(_target: Path, _advance: Callable[[int], None]) -> None:
        raise NotAllowedError("no other way", "none")

    url = f"{remote.server.url}/org/base/resolve/main/a.bin"
    download = remote.download("a.bin", otherwise=no_other_way)
    assert failure(lambda: remote.fetch(download), NotAllowedError) == f"{url}: the server answers 403"
    comes_from(remote, before)


def test_another_way_that_fails_before_it_brings_anything_spoils_nothing(remote: Remote) -> None:
    before = half(remote)
    remote.server.faults.refuse["*"] = Refusal(status=402)

    def broken(_target: Path, advance: Callable[[int], None]) -> None:
        advance(0)
        raise NetworkError("the store is not there", "wait")

    download = remote.download("a.bin", otherwise=broken)
    assert failure(lambda: remote.fetch(download, limits=HASTY), NetworkError) == "the store is not there"
    comes_from(remote, before)


def test_a_host_that_never_answers_ends_it(remote: Remote) -> None:
    remote.server.faults.silent = True
    assert failure(lambda: remote.fetch_paths(limits=HASTY), NetworkError).startswith(
        "no progress for 0.5 s, 0 bytes of "
    )
    remote.server.faults.silent = False
    remote.fetch_paths()
    assert remote.is_right()


def test_a_host_that_nobody_can_reach_ends_it(remote: Remote) -> None:
    with black_hole() as port:
        download = remote.download("b.bin", address=Address(f"http://127.0.0.1:{port}/b.bin", {}))
        assert failure(lambda: remote.fetch(download, limits=HASTY), NetworkError).endswith(
            ": b.bin: nothing came for too long"
        )
    with closed_port() as port:
        download = remote.download("b.bin", address=Address(f"http://127.0.0.1:{port}/b.bin", {}))
    assert failure(lambda: remote.fetch(download, limits=HASTY), NetworkError).endswith(": b.bin: Connection refused")


def test_a_name_that_nobody_knows_ends_it(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise crew_socket.gaierror(crew_socket.EAI_NONAME, "Name or service not known")

    import socket as crew_socket

    monkeypatch.setattr(crew_socket, "getaddrinfo", unknown)
    download = remote.download("b.bin", address=Address("http://hub.invalid/b.bin", {}))
    message = failure(lambda: remote.fetch(download, limits=HASTY), NetworkError)
    assert message.endswith("b.bin: the name is not known: Name or service not known")


def test_the_watch_ends_what_is_not_worth_fetching(remote: Remote) -> None:
    seen = []

    def watch(available: int, read: Callable[[int, int], bytes]) -> bool:
        if available < 4:
            return False
        seen.append(read(0, 4))
        raise IntegrityError("a.bin is no good", "take another")

    assert failure(lambda: remote.fetch(remote.download("a.bin", watch=watch)), IntegrityError) == "a.bin is no good"
    assert len(seen) >= 2
    assert set(seen) == {remote.content("a.bin")[:4]}
    assert remote.heard.came["a.bin"] < SIZES["a.bin"]
    assert remote.left() == []


def put(target: Path, content: bytes) -> None:
    """As the other way does: whole at once."""
    target.with_name("aside").write_bytes(content)
    target.with_name("aside").replace(target)


def test_another_way_takes_the_place_of_what_came_when_it_brings_something(remote: Remote) -> None:
    half(remote)
    remote.server.faults.refuse["*"] = Refusal(status=403)
    seen = []

    def otherwise(target: Path, advance: Callable[[int], None]) -> None:
        for count in (0, 1, SIZES["a.bin"] - 1):
            advance(count)
            seen.append((target.stat().st_size, remote.left()))
        put(target, remote.content("a.bin"))

    remote.fetch(remote.download("a.bin", otherwise=otherwise))
    assert seen == [(SIZES["a.bin"], ["a.bin", "a.bin.marks"]), (0, ["a.bin"]), (0, ["a.bin"])]
    assert remote.is_right("a.bin")
    assert remote.left() == ["a.bin"]
    assert remote.heard.came == Counter({"a.bin": SIZES["a.bin"]})
    assert remote.heard.reused == Counter({"a.bin": 0})


@pytest.mark.parametrize("fits", [0, 1])
def test_where_there_is_no_room_for_both_what_came_makes_some(remote: Remote, fits: int) -> None:
    half(remote)
    remote.server.faults.refuse["*"] = Refusal(status=403)

    def otherwise(target: Path, advance: Callable[[int], None]) -> None:
        if target.stat().st_size:
            advance(fits)
            raise NoSpaceError(f"{target}: full", "make room")
        advance(SIZES["a.bin"])
        put(target, remote.content("a.bin"))

    remote.fetch(remote.download("a.bin", otherwise=otherwise))
    assert remote.is_right("a.bin")
    assert remote.heard.came == Counter({"a.bin": SIZES["a.bin"]})
    (remote.target / "a.bin").unlink()

    def full(target: Path, _advance: Callable[[int], None]) -> None:
        raise NoSpaceError(f"{target}: full", "make room")

    message = failure(lambda: remote.fetch(remote.download("a.bin", otherwise=full)), NoSpaceError)
    assert message == f"{remote.target / 'a.bin'}: full"


def test_what_another_way_has_begun_it_goes_on_with(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked for, and no room is claimed for what does not come."""
    claimed = []
    monkeypatch.setattr(space, "claim", lambda _file, size: claimed.append(size))

    def otherwise(target: Path, advance: Callable[[int], None]) -> None:
        put(target, remote.content(target.name))
        advance(SIZES[target.name])

    begun = remote.download("a.bin", otherwise=otherwise, otherwise_there=1)
    remote.fetch(begun, remote.download("b.bin", otherwise=otherwise))
    assert remote.is_right("a.bin", "b.bin")
    assert remote.server.requests == ["GET /org/base/resolve/main/b.bin"]
    assert SIZES["a.bin"] not in claimed
    assert remote.heard.said == [("note", "a.bin: it goes on by xet")]


@pytest.mark.parametrize("kind", [NotAllowedError, NotFoundError])
def test_where_there_is_no_other_way_any_more_plain_http_is_asked(remote: Remote, kind: type[Dsv4Error]) -> None:
    before = half(remote)

    def no_other_way(_target: Path, _advance: Callable[[int], None]) -> None:
        raise kind("no other way", "none")

    remote.fetch(remote.download("a.bin", otherwise=no_other_way, otherwise_there=before + 1))
    assert remote.is_right("a.bin")
    assert remote.server.sent["org/base/a.bin"] == SIZES["a.bin"] - before
    remote.server.faults.refuse["*"] = Refusal(status=403)
    (remote.target / "a.bin").unlink()
    url = f"{remote.server.url}/org/base/resolve/main/a.bin"
    download = remote.download("a.bin", otherwise=no_other_way, otherwise_there=1)
    assert failure(lambda: remote.fetch(download), NotAllowedError) == f"{url}: the server answers 403"


def test_the_way_that_has_brought_more_is_gone_first(remote: Remote) -> None:
    before = half(remote)
    remote.fetch(remote.download("a.bin", otherwise=pytest.fail, otherwise_there=before - 1))
    assert remote.is_right("a.bin")


def test_another_way_that_ends_in_its_middle_says_why_itself(remote: Remote) -> None:
    def ends(_target: Path, advance: Callable[[int], None]) -> None:
        advance(1)
        raise NotAllowedError("no more", "log in")

    download = remote.download("a.bin", otherwise=ends, otherwise_there=1)
    assert failure(lambda: remote.fetch(download), NotAllowedError) == "no more"


def test_wrong_bytes_of_a_file_that_goes_on_the_other_way_end_it(remote: Remote) -> None:
    def otherwise(target: Path, advance: Callable[[int], None]) -> None:
        put(target, b"x" * SIZES["a.bin"])
        advance(SIZES["a.bin"])

    download = remote.download("a.bin", otherwise=otherwise, otherwise_there=1)
    assert failure(lambda: remote.fetch(download), IntegrityError).endswith("was promised")
    assert remote.left() == []


def test_a_network_that_fails_on_the_other_way_is_told_with_the_way_back(remote: Remote) -> None:
    def otherwise(_target: Path, _advance: Callable[[int], None]) -> None:
        raise NetworkError("nobody answers", "check the network")

    download = remote.download("a.bin", otherwise=otherwise, otherwise_there=1)
    with pytest.raises(NetworkError) as caught:
        remote.fetch(download)
    assert (caught.value.message, caught.value.next_step) == (
        "nobody answers",
        "check the network; or set HF_HUB_DISABLE_XET=1, and it is asked for by plain HTTP",
    )


def test_the_other_way_is_for_one_file_at_a_time(remote: Remote) -> None:
    """Each takes its memory."""
    remote.server.faults.refuse["*"] = Refusal(status=403)
    at_once, most = [], []

    def otherwise(target: Path, advance: Callable[[int], None]) -> None:
        at_once.append(target)
        most.append(len(at_once))
        time.sleep(0.05)
        put(target, remote.content(target.name))
        advance(SIZES[target.name])
        at_once.remove(target)

    paths = [path for path, size in SIZES.items() if size]
    remote.fetch(*[remote.download(path, otherwise=otherwise) for path in paths])
    assert remote.is_right(*paths)
    assert most == [1] * len(paths)


def test_what_plain_http_refuses_comes_otherwise(remote: Remote) -> None:
    remote.server.faults.refuse["org/base/a.bin"] = Refusal(status=403)
    content = remote.content("a.bin")
    calls = []

    def otherwise(target: Path, advance: Callable[[int], None]) -> None:
        calls.append(target)
        put(target, content)
        advance(len(content))

    remote.fetch(remote.download("a.bin", otherwise=otherwise), remote.download("b.bin", otherwise=otherwise))
    assert remote.is_right("a.bin", "b.bin")
    assert calls == [remote.target / "a.bin"]
    assert remote.heard.came == Counter({path: SIZES[path] for path in ("a.bin", "b.bin")})
    content = b"x" * len(content)
    message = failure(lambda: remote.fetch(remote.download("a.bin", otherwise=otherwise)), IntegrityError)
    assert message.endswith("was promised")
    assert remote.left() == ["b.bin"]


def test_a_disk_that_fills_up_keeps_what_came(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    from dsv4_stack.guest.download import partial

    plain, room = os.pwrite, [100 * KIB]

    def pwrite(file: int, data: Any, offset: int) -> int:  # noqa: ANN401 - a buffer
        if len(data) > 8 * KIB:
            room[0] -= len(data)
            if room[0] < 0:
                raise OSError(28, "No space left on device")
        return plain(file, data, offset)

    monkeypatch.setattr(partial.os, "pwrite", pwrite)
    message = failure(lambda: remote.fetch_paths("a.bin"), NoSpaceError)
    assert message == f"{remote.target / 'a.bin'}: No space left on device"
    monkeypatch.undo()
    remote.heard = Heard()
    remote.fetch_paths("a.bin")
    assert remote.is_right("a.bin")
    assert remote.heard.reused["a.bin"] > 0
