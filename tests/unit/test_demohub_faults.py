"""Every fault of our own Hub, over sockets."""

import json
import threading
import time
from http.client import RemoteDisconnected

import pytest
from helpers.hub import BASE, OVERLAY, SHARDS, World
from helpers.raw import ask, connected, part, read
from helpers.wait import wait_until

from dsv4_stack.guest.demo.faults import PAGE, Faults, Refusal

pytest_plugins = ["helpers.hub_fixtures"]

FILE = f"{BASE}/{SHARDS[0]}"
OTHER = f"{BASE}/{SHARDS[1]}"
PATH = f"/{BASE}/resolve/main/{SHARDS[0]}"
OTHER_PATH = f"/{BASE}/resolve/main/{SHARDS[1]}"
LISTING = f"/api/models/{BASE}/revision/main?blobs=true"
SOON_S = 0.05
"""Nothing came for so long after what had to come: nothing comes."""


@pytest.fixture
def content(world: World) -> bytes:
    return (world.root / FILE).read_bytes()


@pytest.fixture
def faults(world: World) -> Faults:
    return world.server.faults


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("key", [FILE, "*"])
def test_a_file_is_refused_so_many_times(world: World, faults: Faults, content: bytes, key: str) -> None:
    faults.refuse[key] = Refusal(status=503, message="Busy", retry_after="7", times=2)
    answers = [ask(world.server, PATH) for _ in range(4)]
    assert [answer.status for answer in answers] == [503, 503, 200, 200]
    assert [answer.headers["Retry-After"] for answer in answers] == ["7", "7", None, None]
    assert json.loads(answers[0].body) == {"error": "Busy"}
    assert answers[2].body == content
    assert ask(world.server, LISTING).status == 200


def test_a_listing_is_refused_so_many_times(world: World, faults: Faults) -> None:
    faults.refuse[BASE] = Refusal(status=429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT", times=1)
    first = ask(world.server, LISTING)
    assert (first.status, first.headers["Retry-After"]) == (429, "Wed, 21 Oct 2026 07:28:00 GMT")
    assert ask(world.server, LISTING).status == 200


def test_a_refusal_without_a_limit_stays(world: World, faults: Faults) -> None:
    faults.refuse[FILE] = Refusal(status=500)
    assert {ask(world.server, PATH).status for _ in range(3)} == {500}
    assert ask(world.server, OTHER_PATH).status == 200


def test_refusals_are_counted_once_whatever_the_threads(faults: Faults) -> None:
    faults.refuse[FILE] = Refusal(status=500, times=50)
    found: list[bool] = []

    def take() -> None:
        found.extend(faults.refusal(FILE) is not None for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found.count(True), found.count(False)) == (50, 50)


def test_a_body_is_cut_so_many_times(world: World, faults: Faults, content: bytes) -> None:
    faults.cut_times[FILE] = 1
    first, second = ask(world.server, PATH, headers=part(1000, 2000)), ask(world.server, PATH)
    assert (first.body, first.is_cut, first.span) == (content[1000:1500], True, f"bytes 1000-1999/{len(content)}")
    assert (second.body, second.is_cut) == (content, False)
    assert world.server.sent == {FILE: 500 + len(content)}


@pytest.mark.parametrize("key", [FILE, BASE, "*"])
def test_a_fault_is_of_a_file_a_repository_or_all(world: World, faults: Faults, key: str) -> None:
    faults.cut.add(key)
    cut = [ask(world.server, path).is_cut for path in (PATH, OTHER_PATH, f"/{OVERLAY}/resolve/main/README.md")]
    assert cut == [True, key != FILE, key == "*"]


def test_a_limit_of_one_file_does_not_end_the_fault_of_the_others(world: World, faults: Faults) -> None:
    faults.cut.add("*")
    faults.cut_times[FILE] = 1
    assert [ask(world.server, path).is_cut for path in (PATH, PATH, OTHER_PATH, OTHER_PATH)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_byte_is_flipped_wherever_a_range_has_it(world: World, faults: Faults, content: bytes) -> None:
    faults.flip.add(FILE)
    middle, size = len(content) // 2, len(content)
    for start, end in [(0, middle), (0, middle + 1), (middle, middle + 1), (middle, size), (middle + 1, size)]:
        assert ask(world.server, PATH, headers=part(start, end)).body == flipped(content)[start:end]
    assert ask(world.server, PATH).body == flipped(content)


def test_only_bodies_that_have_the_byte_count_as_flipped(world: World, faults: Faults, content: bytes) -> None:
    faults.flip_times[FILE] = 1
    assert ask(world.server, PATH, headers=part(0, 10)).body == content[:10]
    assert ask(world.server, PATH).body == flipped(content)
    assert ask(world.server, PATH).body == content


def test_a_body_stalls_until_the_fault_is_cleared(world: World, faults: Faults, content: bytes) -> None:
    faults.stall[FILE] = 100
    faults.stall_times[FILE] = 1
    with connected(world.server) as connection:
        connection.request("GET", PATH, headers=part(50, 1050))
        response = connection.getresponse()
        socket = connection.sock
        assert response.read(100) == content[50:150]
        socket.settimeout(SOON_S)
        with pytest.raises(TimeoutError):
            response.read1()
        assert world.server.sent == {FILE: 100}
        assert ask(world.server, PATH).body == content
        faults.stall.clear()
        socket.settimeout(30)
        assert socket.recv(1) == b""


def test_a_body_that_is_shorter_does_not_stall(world: World, faults: Faults, content: bytes) -> None:
    faults.stall[FILE] = 100
    faults.stall_times[FILE] = 1
    assert ask(world.server, PATH, headers=part(0, 100)).body == content[:100]
    assert faults.stall_times == {FILE: 1}


@pytest.mark.parametrize("fault", [{"stall": {"*": 0}}, {"silent": True}, {"drip": {"*": 0.1}}, {"latency_s": 60.0}])
def test_a_client_that_leaves_takes_its_thread_along(world: World, fault: dict[str, object]) -> None:
    world.server.faults = Faults(**fault)  # type: ignore[arg-type]
    before = threading.active_count()
    with connected(world.server) as connection:
        connection.request("GET", PATH)
        assert wait_until(lambda: threading.active_count() == before + 1, timeout_s=30, interval_s=0.001)
    assert wait_until(lambda: threading.active_count() == before, timeout_s=30, interval_s=0.001)


def test_a_silent_hub_answers_nothing_until_it_is_cleared(world: World, faults: Faults) -> None:
    faults.silent = True
    for count, path in enumerate((PATH, LISTING, "/healthz"), 1):
        with connected(world.server) as connection:
            connection.request("GET", path)
            assert wait_until(lambda count=count: len(world.server.requests) == count, timeout_s=30, interval_s=0.001)
            connection.sock.settimeout(SOON_S)
            with pytest.raises(TimeoutError):
                connection.getresponse()
    with connected(world.server) as connection:
        connection.request("GET", "/healthz")
        assert wait_until(lambda: len(world.server.requests) == 4, timeout_s=30, interval_s=0.001)
        faults.silent = False
        with pytest.raises(RemoteDisconnected):
            connection.getresponse()
    assert world.server.requests == [f"GET {path}" for path in (PATH, LISTING, "/healthz", "/healthz")]


def test_a_body_drips(world: World, faults: Faults, content: bytes) -> None:
    faults.drip[FILE] = 100.0
    start = time.monotonic()
    with connected(world.server) as connection:
        connection.request("GET", PATH, headers=part(0, 50))
        response = connection.getresponse()
        parts = list(iter(response.read1, b""))
        assert time.monotonic() - start >= 0.5
    assert b"".join(parts) == content[:50]
    assert max(map(len, parts)) < 50
    assert ask(world.server, OTHER_PATH).body == (world.root / OTHER).read_bytes()


def test_a_rate_is_of_each_connection_and_over_its_bodies(world: World, faults: Faults) -> None:
    content = bytes(range(256)) * 400
    (world.root / BASE / "merges.txt").write_bytes(content)
    faults.rate = 1e6
    start = time.monotonic()
    with connected(world.server) as connection, connected(world.server) as other:
        for each in (connection, other):
            each.request("GET", f"/{BASE}/resolve/main/merges.txt")
        answers = [read(each.getresponse()) for each in (connection, other)]
        connection.request("GET", f"/{BASE}/resolve/main/merges.txt", headers=part(0, 51200))
        answers.append(read(connection.getresponse()))
        took = time.monotonic() - start
    assert [answer.body for answer in answers] == [content, content, content[:51200]]
    assert 0.1536 <= took < 30


def test_an_answer_comes_late(world: World, faults: Faults) -> None:
    faults.latency_s = 0.05
    start = time.monotonic()
    assert ask(world.server, LISTING).status == ask(world.server, PATH).status == 200
    assert 0.1 <= time.monotonic() - start < 30


def test_a_range_is_ignored(world: World, faults: Faults, content: bytes) -> None:
    faults.no_ranges = True
    answer = ask(world.server, PATH, headers=part(10, 20))
    assert (answer.status, answer.body) == (200, content)
    assert (answer.span, answer.headers["Accept-Ranges"]) == (None, None)


@pytest.mark.parametrize(("asked", "said"), [((10, 20), (9, 19)), ((0, 20), (1, 20)), ((4000, 4096), (3999, 4095))])
def test_another_range_comes(
    world: World, faults: Faults, content: bytes, asked: tuple[int, int], said: tuple[int, int]
) -> None:
    faults.wrong_range.add(FILE)
    answer = ask(world.server, PATH, headers=part(*asked))
    assert (answer.status, answer.span) == (206, f"bytes {said[0]}-{said[1] - 1}/{len(content)}")
    assert answer.body == content[slice(*said)]
    assert ask(world.server, PATH).body == content


def test_a_page_comes_instead_of_a_file(world: World, faults: Faults) -> None:
    faults.page.add(FILE)
    answer = ask(world.server, PATH, headers=part(0, 10))
    assert (answer.status, answer.headers["Content-Type"], answer.body.decode()) == (200, "text/html", PAGE)
    assert ask(world.server, OTHER_PATH).headers["Content-Type"] == "application/octet-stream"


def test_a_file_is_in_xet_storage(world: World, faults: Faults, content: bytes) -> None:
    faults.xet[FILE] = "f" * 64
    siblings = json.loads(ask(world.server, LISTING).body)["siblings"]
    tree = json.loads(ask(world.server, f"/api/models/{BASE}/tree/main").body)
    assert {each["rfilename"]: each["xetHash"] for each in siblings if "xetHash" in each} == {SHARDS[0]: "f" * 64}
    assert {each["path"]: each["xetHash"] for each in tree if "xetHash" in each} == {SHARDS[0]: "f" * 64}
    answer = ask(world.server, PATH)
    assert (answer.headers["X-Xet-Hash"], answer.headers["Link"], answer.body) == ("f" * 64, None, content)
    assert ask(world.server, OTHER_PATH).headers["X-Xet-Hash"] is None


def test_the_way_to_xet_storage(world: World, faults: Faults) -> None:
    route = f"/api/models/{BASE}/xet-read-token/{world.revision(BASE)}"
    assert ask(world.server, route).status == 404
    faults.xet[FILE], faults.cas = "f" * 64, "http://127.0.0.1:9"
    assert ask(world.server, PATH, method="HEAD").headers["Link"] == f'<{world.url}{route}>; rel="xet-auth"'
    answer = ask(world.server, route)
    token = json.loads(answer.body)
    assert token == {"casUrl": faults.cas, "accessToken": "demo", "exp": token["exp"]}
    assert answer.headers["X-Xet-Cas-Url"] == faults.cas
    assert answer.headers["X-Xet-Access-Token"] == "demo"
    assert answer.headers["X-Xet-Token-Expiration"] == str(token["exp"])


def test_plain_http_is_refused_to_a_file_of_xet(world: World, faults: Faults) -> None:
    faults.xet_only.add(FILE)
    answer = ask(world.server, PATH, headers=part(0, 10))
    assert (answer.status, answer.headers["Content-Type"]) == (403, "application/xml")
    assert answer.body.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
        "<Message>The file is too large for plain HTTP, use xet</Message></Error>\n"
    )
    assert ask(world.server, PATH, method="HEAD").status == 200
    assert ask(world.server, OTHER_PATH).status == 200
