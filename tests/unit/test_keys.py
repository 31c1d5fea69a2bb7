"""API keys: the file, the constant-time look-up, the allowance, the desk, and the verb."""

import hmac
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers.process import run
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack import __main__ as cli
from dsv4_stack.errors import ConfigError, NotFoundError, UsageError
from dsv4_stack.guest import __main__ as guest
from dsv4_stack.guest.cli import dispatch
from dsv4_stack.guest.keys import desk, ring
from dsv4_stack.guest.keys.allowance import Allowance
from dsv4_stack.guest.keys.desk import Desk
from dsv4_stack.plan import UID
from dsv4_stack.verbs import keys as verb

NAMES = st.from_regex(r"[A-Za-z0-9._@-]{1,64}", fullmatch=True)
# Waits on its standard input, so that many begin at once.
ONE_OF_MANY = """
import sys
from pathlib import Path
from dsv4_stack.guest.keys import ring
file, verb, *names = sys.argv[1:]
sys.stdin.read()
for name in names:
    getattr(ring, verb)(Path(file), name)
"""


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def for_others(path: Path, mode: int) -> Iterator[None]:
    """It has this mode, and this process is not root."""
    user, before = os.geteuid(), path.stat().st_mode & 0o777
    path.chmod(mode)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(before)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Where others come so far, as they do not in pytest's own folders."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def at_once(file: Path, *each: tuple[str, ...]) -> None:
    """Each a process: what it does, and with which names."""
    command = [sys.executable, "-c", ONE_OF_MANY, str(file)]
    running = [subprocess.Popen([*command, *words], stdin=subprocess.PIPE) for words in each]
    for process in running:
        assert process.stdin
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0] * len(each)


def test_a_key_is_told_once_and_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys" / ring.NAME
    key = ring.add(file, "alice")
    assert key.startswith("sk-dsv4-")
    assert len(key) > 40
    assert key not in file.read_text()
    assert ring.owner(ring.load(file), key) == "alice"
    assert oct(file.stat().st_mode & 0o777) == "0o644"
    assert [path.name for path in file.parent.iterdir()] == [ring.NAME]


@pytest.mark.parametrize("mask", [0o077, 0o777, 0])
def test_the_edges_user_may_read_them_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    file = tmp_path / "keys" / ring.NAME
    with umask(mask):
        ring.add(file, "alice")
        ring.add(file, "bob")
        ring.revoke(file, "bob")
    assert [oct(path.stat().st_mode & 0o777) for path in (file.parent, file)] == ["0o755", "0o644"]


def test_a_folder_that_was_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    ring.add(tmp_path / ring.NAME, "alice")
    assert oct(tmp_path.stat().st_mode & 0o777) == "0o700"


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys" / ring.NAME
    groups = [[f"{group}-{number}" for number in range(25)] for group in range(6)]
    at_once(file, *(("add", *group) for group in groups))
    assert set(ring.load(file)) == {name for group in groups for name in group}
    more = [f"another-{number}" for number in range(25)]
    at_once(file, *(("revoke", *group) for group in groups[:3]), ("add", *more))
    assert set(ring.load(file)) == {*groups[3], *groups[4], *groups[5], *more}
    assert [path.name for path in file.parent.iterdir()] == [ring.NAME]


def test_what_another_took_back_meanwhile_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ring.NAME
    for name in ("alice", "bob"):
        ring.add(file, name)
    seen = iter([ring.load(file), {"bob": ring.hashed("b")}])
    monkeypatch.setattr(ring, "load", lambda _: next(seen))
    ring.revoke(file, "alice")
    monkeypatch.undo()
    assert ring.load(file) == {"bob": ring.hashed("b")}


def test_keys_come_and_go(tmp_path: Path) -> None:
    file = tmp_path / ring.NAME
    keys = {name: ring.add(file, name) for name in ("alice", "bob")}
    ring.revoke(file, "alice")
    known = ring.load(file)
    assert [ring.owner(known, key) for key in keys.values()] == ["", "bob"]
    assert ring.add(file, "alice") != keys["alice"]


@pytest.mark.parametrize("name", ["", "a b", "#a", "a" * 65, "ä ", "x\n"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a key"):
        ring.add(tmp_path / ring.NAME, name)


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    file = tmp_path / ring.NAME
    ring.add(file, "alice")
    with pytest.raises(UsageError) as taken:
        ring.add(file, "alice")
    assert str(taken.value) == "there is a key 'alice' already\n  next: run: dsv4 keys revoke alice"
    with pytest.raises(NotFoundError) as missing:
        ring.revoke(file, "bob")
    assert str(missing.value) == f"there is no key 'bob' in {file}\n  next: run: dsv4 keys list"


def test_every_line_that_is_none_is_named() -> None:
    good = "0" * 64
    with pytest.raises(ConfigError) as caught:
        ring.parse(f"# a comment\nalice {good}  # hers\n\nbob\ncarol {good[:-1]}\nalice {good}\n", "keys")
    assert caught.value.message == (
        "keys is no list of API keys:\n"
        "  line 4: no name and sha256\n"
        "  line 5: no name and sha256\n"
        "  line 6: the name is there already"
    )


@given(st.dictionaries(NAMES, st.binary(min_size=1).map(lambda data: ring.hashed(data.hex()))))
def test_any_ring_is_read_back(known: dict[str, str]) -> None:
    assert ring.parse("".join(f"{name} {sha256}\n" for name, sha256 in known.items()), "x") == known


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    with suppress(ConfigError):
        assert all(len(sha256) == 64 for sha256 in ring.parse(text, "x").values())


def test_all_keys_are_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time tells nothing."""
    known = {name: ring.hashed(name) for name in ("a", "b", "c")}
    seen: list[str] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(
        ring.hmac, "compare_digest", lambda left, right: bool(seen.append(right) or compare(left, right))
    )
    assert [ring.owner(known, key) for key in ("a", "c", "x", "")] == ["a", "c", "", ""]
    assert seen == list(known.values()) * 4


def test_an_allowance_is_a_burst_and_a_steady_rate() -> None:
    now = 0.0
    allowance = Allowance(60, 2, clock=lambda: now)
    assert [allowance.wait_s("a") for _ in range(3)] == [0, 0, 1]
    assert allowance.wait_s("b") == 0
    now = 0.5
    assert allowance.wait_s("a") == 0.5
    now = 1.0
    assert [allowance.wait_s("a"), allowance.wait_s("a")] == [0, 1]
    now = 100.0
    assert [allowance.wait_s("a") for _ in range(3)] == [0, 0, 1]


def test_strangers_take_no_memory() -> None:
    allowance = Allowance(60, 1)
    for number in range(10_000):
        allowance.wait_s(str(number))
    assert len(allowance._buckets) == 4096


@contextmanager
def at_the_desk(file: Path, *, per_minute: float = 600, burst: int = 100) -> Iterator[int]:
    server = desk.serve(Desk(file, per_minute, burst), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    with server:
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def ask(port: int, headers: dict[str, str], path: str = "/check") -> tuple[int, dict[str, str], str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    kept = ("X-Dsv4-Key", "WWW-Authenticate", "Retry-After")
    return answer.status, {name: answer.headers[name] for name in kept if name in answer.headers}, body


def test_the_desk_knows_both_ways_to_send_a_key(tmp_path: Path) -> None:
    key = ring.add(tmp_path / ring.NAME, "alice")
    with at_the_desk(tmp_path / ring.NAME) as port:
        for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}, {"X-Api-Key": key}):
            assert ask(port, headers) == (200, {"X-Dsv4-Key": "alice"}, "")
        assert ask(port, {}, "/healthz") == (200, {}, "")


def test_whoever_has_none_is_told_what_is_needed(tmp_path: Path) -> None:
    ring.add(tmp_path / ring.NAME, "alice")
    with at_the_desk(tmp_path / ring.NAME) as port:
        for headers in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic YTpi"},
            {"Authorization": "Bearer"},
        ):
            status, told, body = ask(port, headers)
            assert (status, told) == (401, {"WWW-Authenticate": "Bearer"})
            assert json.loads(body)["error"]["message"] == "a known API key is needed: Authorization: Bearer KEY"


def test_keys_are_given_and_taken_without_a_restart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / ring.NAME
    with at_the_desk(file) as port:
        assert ask(port, {"X-Api-Key": "x"})[0] == 401
        key = ring.add(file, "alice")
        assert ask(port, {"X-Api-Key": key})[0] == 200
        file.write_text(f"{file.read_text()}a slip of the pen\n")
        assert ask(port, {"X-Api-Key": key})[0] == 200
        file.unlink()
        assert ask(port, {"X-Api-Key": key})[0] == 401
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "keys: 1 known"
    assert said[1] == f"keys: {file} is no list of API keys:"
    assert said[-1] == "keys: 0 known"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_keeps_the_desk_from_reading_is_said_once_and_tried_again(
    what: str, shared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = shared / "keys" / ring.NAME
    key = ring.add(file, "alice")
    path = file if what == "file" else file.parent
    asked = Desk(file, 600, 100)
    with for_others(path, 0):
        assert [asked.judge(key, "").status for _ in range(3)] == [HTTPStatus.UNAUTHORIZED] * 3
    refused = (
        f"keys: {file} cannot be read: [Errno 13] Permission denied: '{file}'\n"
        "  next: let the containers' user read it\n"
    )
    assert capfd.readouterr().err == refused
    assert asked.judge(key, "").status == HTTPStatus.OK
    assert capfd.readouterr().err == "keys: 1 known\n"
    later = ring.add(file, "bob")
    with for_others(path, 0):
        assert [asked.judge(each, "").status for each in (key, later)] == [HTTPStatus.OK, HTTPStatus.UNAUTHORIZED]
    assert capfd.readouterr().err == refused
    assert asked.judge(later, "").status == HTTPStatus.OK


def test_the_slower_of_two_threads_puts_no_older_ring_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ring.NAME
    ring.add(file, "alice")
    asked, load = Desk(file, 600, 100), ring.load
    has_read, may_go_on = threading.Event(), threading.Event()

    def load_slowly(path: Path) -> ring.Ring:
        found = load(path)
        if not has_read.is_set():
            has_read.set()
            assert may_go_on.wait(10)
        return found

    monkeypatch.setattr(ring, "load", load_slowly)
    slow, fast = (threading.Thread(target=asked.judge, args=("x", "")) for _ in range(2))
    slow.start()
    assert has_read.wait(10)
    monkeypatch.setattr(ring, "load", load)
    key = ring.add(file, "bob")
    fast.start()
    fast.join(0.5)
    assert fast.is_alive(), "it did not wait for the one that reads"
    may_go_on.set()
    for thread in (slow, fast):
        thread.join(10)
    assert asked.judge(key, "").name == "bob"


def test_a_burst_of_connections_waits_for_its_turn(tmp_path: Path) -> None:
    with desk.serve(Desk(tmp_path / ring.NAME, 600, 100), 0) as server:
        assert server.request_queue_size == 1024
        address = ("127.0.0.1", int(server.server_address[1]))
        for connection in [socket.create_connection(address, timeout=2) for _ in range(200)]:
            connection.close()


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        *(
            ("--per-minute", value, f"{value!r} is no number above 0\n  next: mend DSV4_EDGE_PER_MINUTE")
            for value in ("0", "-1", "many", "nan", "inf", "1_0_")
        ),
        *(
            ("--burst", value, f"{value!r} is no whole number above 0\n  next: mend DSV4_EDGE_BURST")
            for value in ("0", "-1", "many", "1.5")
        ),
    ],
)
def test_an_allowance_that_is_none_is_refused(
    flag: str, value: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["key-desk", str(tmp_path), "--port", "0", f"{flag}={value}"]
    assert dispatch("guest", "", "dsv4_stack.guest", guest.VERBS, words) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_key_has_its_allowance_and_strangers_have_one_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Strangers get one more each second, however long 62 requests take.
    monkeypatch.setattr(desk, "Allowance", partial(Allowance, clock=lambda: 0.0))
    key = ring.add(tmp_path / ring.NAME, "alice")
    with at_the_desk(tmp_path / ring.NAME, per_minute=1, burst=2) as port:
        assert [ask(port, {"X-Api-Key": key})[0] for _ in range(2)] == [200, 200]
        status, told, body = ask(port, {"X-Api-Key": key})
        assert (status, told) == (429, {"X-Dsv4-Key": "alice", "Retry-After": "60"})
        assert json.loads(body)["error"]["message"] == "alice has used up its requests"
        seen = [ask(port, {"X-Forwarded-For": "1.2.3.4"})[0] for _ in range(62)]
        assert seen == [401] * 60 + [429] * 2
        assert ask(port, {"X-Forwarded-For": "1.2.3.5"})[0] == 401


def test_the_verb_prints_a_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, file = ["keys", "--dir", str(tmp_path / "new")], tmp_path / "new" / ring.NAME
    assert cli.main([*words, "add", "alice"]) == 0
    told = capsys.readouterr()
    assert ring.owner(ring.load(file), told.out.strip()) == "alice"
    assert told.err == f"keys: {file} has alice's hash; the key itself is kept nowhere\n"
    assert cli.main([*words, "list"]) == 0
    assert cli.main([*words, "list", "--json"]) == 0
    assert capsys.readouterr().out == 'alice\n[\n  "alice"\n]\n'
    assert cli.main([*words, "revoke", "alice"]) == 0
    assert cli.main([*words, "list"]) == 0
    assert capsys.readouterr().out == ""


def test_the_verb_says_where_the_edge_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    words = ["keys", "--dir", str(tmp_path)]
    assert cli.main([*words, "add", "alice"]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"keys: the edge runs as user {UID}, which may not read {tmp_path}",
        f"  next: run: chmod a+rx {tmp_path}",
    ]
    monkeypatch.setenv("DSV4_UID", "1000")
    assert cli.main([*words, "add", "bob"]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("words", [("add", "bob"), ("revoke", "alice")])
def test_where_the_verb_may_not_write_it_names_a_command_that_may(
    shared: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    """Run here as sudo would: by root, with nothing of this environment."""
    file = shared / "keys" / ring.NAME
    ring.add(file, "alice")
    given = ["keys", "--dir", str(file.parent), *words]
    # Which is here by now: another user may not be able to import it.
    assert verb.ring is ring
    with for_others(file.parent, 0o555):
        assert cli.main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file} cannot be written: Permission denied\n  next: name a folder of yours")
    command = shlex.split(said.partition("or run: sudo ")[2])
    assert command == [sys.executable, "-m", "dsv4_stack", *given]
    done = run("env", "-i", *command, timeout=30, cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    assert list(ring.load(file)) == (["alice", "bob"] if words[0] == "add" else [])
