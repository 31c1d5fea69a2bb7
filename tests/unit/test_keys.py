"""API keys: the file, the constant-time look-up, the allowance, the desk, and the verb."""

import hmac
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack import __main__ as cli
from dsv4_stack.errors import ConfigError, NotFoundError, UsageError
from dsv4_stack.guest.keys import desk, ring
from dsv4_stack.guest.keys.allowance import Allowance
from dsv4_stack.guest.keys.desk import Desk

NAMES = st.from_regex(r"[A-Za-z0-9._@-]{1,64}", fullmatch=True)


def test_a_key_is_told_once_and_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys" / ring.NAME
    key = ring.add(file, "alice")
    assert key.startswith("sk-dsv4-")
    assert len(key) > 40
    assert key not in file.read_text()
    assert ring.owner(ring.load(file), key) == "alice"
    assert oct(file.stat().st_mode & 0o777) == "0o644"
    assert [path.name for path in file.parent.iterdir()] == [ring.NAME]


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


def test_a_key_has_its_allowance_and_strangers_have_one_together(tmp_path: Path) -> None:
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
    words = ["keys", "--dir", str(tmp_path)]
    assert cli.main([*words, "add", "alice"]) == 0
    told = capsys.readouterr()
    assert ring.owner(ring.load(tmp_path / ring.NAME), told.out.strip()) == "alice"
    assert told.err == f"keys: {tmp_path}/api_keys has alice's hash; the key itself is kept nowhere\n"
    assert cli.main([*words, "list"]) == 0
    assert cli.main([*words, "list", "--json"]) == 0
    assert capsys.readouterr().out == 'alice\n[\n  "alice"\n]\n'
    assert cli.main([*words, "revoke", "alice"]) == 0
    assert cli.main([*words, "list"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_the_verb_says_what_helps_where_it_may_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert cli.main(["keys", "--dir", str(tmp_path), "add", "alice"]) == 2
    assert capsys.readouterr().err.endswith("next: run it with sudo, or name a folder with --dir\n")
