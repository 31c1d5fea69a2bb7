"""Files by xet: the real hf_xet, in its own process, against a store on loopback."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.cas import Cas, serving
from helpers.hub import BASE, SHARDS, World
from helpers.wait import wait_until

from dsv4_stack.errors import (
    Dsv4Error,
    NetworkError,
    NoSpaceError,
    NotAllowedError,
    NotFoundError,
)
from dsv4_stack.guest import xet

pytest_plugins = ["helpers.hub_fixtures"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

REVISION = "a" * 40
TOKEN = "hf_secret"
MIB = 1 << 20
QUICK = xet.Patience(stall_s=20.0, attempts=2, pause_s=0.0)
KEPT = "what came is kept; check the network, then run it again: it goes on where it stopped"


@pytest.fixture
def cas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cas]:
    """Four xorbs of a mebibyte, and the last one short."""
    content = tmp_path / "content"
    content.write_bytes(os.urandom(3 * MIB + 12345))
    with serving(Cas(content=content, xorb_chunks=16)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "50ms")
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "partial").mkdir()
    return tmp_path / "partial" / "model.safetensors"


def bring(cas: Cas, target: Path, advance: Callable[[int], None] = id, **changed: object) -> None:
    wanted = {"path": cas.path, "size": cas.size, "patience": QUICK} | changed
    xet.fetch(cas.repo, REVISION, target=target, advance=advance, **wanted)  # type: ignore[arg-type]


def left(target: Path) -> list[str]:
    """Everything in the folder of the target."""
    return sorted(path.relative_to(target.parent).as_posix() for path in target.parent.rglob("*"))


def part(cas: Cas) -> str:
    return f"model.safetensors.xet/part-{cas.xet_hash}"


def is_running(process: int) -> bool:
    """A dead one that nobody waited for is not."""
    try:
        return stat(Path(f"/proc/{process}"))[0] not in ("Z", "X")
    except OSError:
        return False


def clients(parent: int) -> list[int]:
    """The xet clients that a process has."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if is_client(folder, str(parent))]


def is_client(folder: Path, parent: str) -> bool:
    try:
        return stat(folder)[1] == parent and b"dsv4_stack.guest.xet_client" in (folder / "cmdline").read_bytes()
    except OSError:
        return False


def stat(folder: Path) -> list[str]:
    """State and parent come first."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def in_the_clients_environment(code: str, cache: Path) -> str:
    """What it prints. Here hf_xet would write to the home's cache, as soon as it is imported."""
    return subprocess.check_output([sys.executable, "-c", code], env=xet.environment(cache), text=True)


def use_instead_of_hf_xet(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "hf_xet.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=os.pathsep)


def test_a_file_arrives_with_nothing_left_beside_it(cas: Cas, target: Path) -> None:
    told: list[int] = []
    bring(cas, target, told.append)
    assert target.read_bytes() == cas.content.read_bytes()
    assert left(target) == [target.name]
    assert sum(told) == cas.size


def test_the_token_goes_to_the_hub_alone_and_is_in_nobodys_sight(cas: Cas, target: Path) -> None:
    words: set[bytes] = set()

    def look(_count: int) -> None:
        for client in clients(os.getpid()):
            # It may end meanwhile.
            with suppress(OSError):
                words.add(Path(f"/proc/{client}/cmdline").read_bytes())

    bring(cas, target, look)
    words.discard(b"")
    assert [TOKEN.encode() in word for word in words] == [False]
    assert cas.bearers == {
        "resolve": {f"Bearer {TOKEN}"},
        "token": {f"Bearer {TOKEN}"},
        "reconstruction": {"Bearer of-the-store"},
        "data": {""},
    }


def test_it_works_without_a_home_and_writes_nowhere_else(
    cas: Cas, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    for name in ("HF_HOME", "XDG_CACHE_HOME", "HF_XET_CACHE", "TMPDIR"):
        monkeypatch.setenv(name, str(home / name))
    monkeypatch.setenv("HOME", str(home))
    bring(cas, target)
    assert target.read_bytes() == cas.content.read_bytes()
    assert list(home.iterdir()) == []


def test_the_next_run_goes_on_where_one_was_stopped(cas: Cas, target: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(count: int) -> None:
        if count >= MIB:
            raise StoppedError

    cas.stalls = {3: 1}
    with pytest.raises(StoppedError):
        bring(cas, target, stop)
    assert clients(os.getpid()) == []
    assert left(target) == ["model.safetensors.xet", part(cas)]
    there = (target.parent / part(cas)).stat().st_size
    assert there in (MIB, 2 * MIB, 3 * MIB)

    cas.requests.clear()
    told: list[int] = []
    bring(cas, target, told.append)
    # The library may ask for a part twice.
    asked = {request for request in cas.requests if request.startswith("GET /data/")}
    assert asked == {f"GET /data/{number}" for number in range(there // MIB, 4)}
    assert target.read_bytes() == cas.content.read_bytes()
    assert left(target) == [target.name]
    assert sum(told) == cas.size


def test_what_is_left_of_another_file_or_is_too_long_is_not_gone_on_with(cas: Cas, target: Path) -> None:
    room = target.parent / "model.safetensors.xet"
    room.mkdir()
    (room / "part-of-another").write_bytes(b"other")
    (target.parent / part(cas)).write_bytes(bytes(cas.size + 1))
    bring(cas, target)
    assert target.read_bytes() == cas.content.read_bytes()
    assert left(target) == [target.name]


def test_what_is_there_is_known_without_asking(cas: Cas, target: Path) -> None:
    assert (xet.parts(target), xet.there(target, cas.size)) == ([], 0)
    (target.parent / part(cas)).parent.mkdir()
    for name, size in ((part(cas), MIB), ("model.safetensors.xet/part-old", cas.size + 1)):
        with (target.parent / name).open("wb") as file:
            file.truncate(size)
    assert [path.stat().st_size for path in xet.parts(target)] == [MIB, cas.size + 1]
    assert (xet.there(target, cas.size), xet.there(target, MIB - 1)) == (MIB, 0)
    assert cas.requests == []


def test_a_file_that_was_whole_already_is_only_renamed(cas: Cas, target: Path) -> None:
    (target.parent / part(cas)).parent.mkdir()
    (target.parent / part(cas)).write_bytes(cas.content.read_bytes())
    bring(cas, target)
    assert target.read_bytes() == cas.content.read_bytes()
    assert cas.requests == [f"HEAD /org/model/resolve/{REVISION}/model.safetensors"]


def test_memory_is_capped_and_a_users_smaller_cap_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import json, hf_xet
from dsv4_stack.guest import xet_client
config = xet_client.limited(hf_xet.XetConfig(), 4)
names = ("download_buffer_limit", "download_buffer_perfile_size", "download_buffer_size")
caps = {name: config.get(f"reconstruction.{name}") for name in names}
print(json.dumps(caps | {"connections": config.get("client.ac_max_download_concurrency")}))
"""
    monkeypatch.setenv("HF_XET_HIGH_PERFORMANCE", "1")
    monkeypatch.setenv("HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE", "8mb")
    monkeypatch.setenv("HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_PERFILE_SIZE", "6gb")
    monkeypatch.setenv("HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_LIMIT", "8gb")
    assert "HF_XET_HIGH_PERFORMANCE" not in xet.environment(tmp_path)
    assert json.loads(in_the_clients_environment(code, tmp_path)) == {
        "download_buffer_limit": 256 * MIB,
        "download_buffer_perfile_size": 256 * MIB,
        "download_buffer_size": 8_000_000,
        "connections": 4,
    }


def test_a_client_that_hangs_is_ended_and_named(cas: Cas, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_XET_CLIENT_READ_TIMEOUT", "300s")
    cas.stalls = {0: 99}
    seen: set[int] = set()
    with pytest.raises(NetworkError) as raised:
        bring(
            cas,
            target,
            lambda _: seen.update(clients(os.getpid())),
            patience=xet.Patience(stall_s=0.8, attempts=2, pause_s=0.0),
        )
    assert str(raised.value) == f"model.safetensors: the xet client brought nothing for 0.8 s\n  next: {KEPT}"
    assert len(seen) == 2
    assert [process for process in seen if is_running(process)] == []


def test_a_connection_that_stalls_is_opened_anew_by_the_client_itself(
    cas: Cas, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_XET_CLIENT_READ_TIMEOUT", "500ms")
    cas.stalls = {0: 1}
    bring(cas, target, patience=xet.Patience(attempts=1))
    assert target.read_bytes() == cas.content.read_bytes()


def test_the_client_dies_with_us(cas: Cas, target: Path) -> None:
    cas.stalls = {0: 99}
    code = f"""
from pathlib import Path
from dsv4_stack.guest import xet
target = Path({str(target)!r})
xet.fetch("org/model", "main", "model.safetensors", size={cas.size}, target=target, advance=id)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        try:
            assert wait_until(lambda: cas.served > 0, timeout_s=20, interval_s=0.02)
            (client,) = clients(parent.pid)
        finally:
            parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not is_running(client), timeout_s=5, interval_s=0.02)


def test_a_client_that_dies_is_tried_again_with_fewer_connections(
    cas: Cas, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"""
import datetime, os, signal
XetSession = None
class XetConfig:
    def get(self, name):
        return datetime.timedelta.max if "timeout" in name else 1 << 60
    def with_config(self, changed):
        with open({str(tmp_path / "connections")!r}, "a") as file:
            print(changed["client.ac_max_download_concurrency"], file=file)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    use_instead_of_hf_xet(module, tmp_path, monkeypatch)
    with pytest.raises(Dsv4Error) as raised:
        bring(cas, target, patience=xet.Patience(attempts=3, pause_s=0.0))
    assert (tmp_path / "connections").read_text() == "4\n2\n1\n"
    assert raised.value.exit_code == 1
    assert str(raised.value) == (
        "model.safetensors: the xet client ended with signal 9\n  next: what came is kept; "
        "give it 512 MiB of memory, then run it again: it goes on where it stopped"
    )


def test_what_hf_xet_prints_is_not_mistaken_for_ours(
    cas: Cas, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use_instead_of_hf_xet("print('no JSON', flush=True)\nraise ImportError('no such luck')", tmp_path, monkeypatch)
    with pytest.raises(Dsv4Error, match="no such luck"):
        bring(cas, target)
    assert capfd.readouterr() == ("", "no JSON\n")


def test_without_hf_xet_it_says_so(cas: Cas, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_instead_of_hf_xet("raise ImportError('no such luck')", tmp_path, monkeypatch)
    with pytest.raises(Dsv4Error) as raised:
        bring(cas, target)
    assert str(raised.value) == "hf_xet cannot be used here: no such luck\n  next: install it: pip install hf-xet"
    assert left(target) == []


@pytest.mark.parametrize(("status", "kind"), [(401, NotAllowedError), (503, NetworkError)])
def test_a_refusal_of_the_hub_is_named(cas: Cas, target: Path, status: int, kind: type[Dsv4Error]) -> None:
    cas.refusals = {"resolve": status}
    with pytest.raises(Dsv4Error) as raised:
        bring(cas, target)
    assert (type(raised.value), raised.value.message) == (kind, f"{cas.url} answers {status} for org/model")
    assert left(target) == []


@pytest.mark.parametrize("refused", ["token", "reconstruction", "data"])
def test_a_refusal_of_the_storage_is_tried_again_and_named(cas: Cas, target: Path, refused: str) -> None:
    cas.refusals = {refused: 403}
    # hf_xet has a race: it raises this or that, or ends the stream as if it were whole.
    says = r"model\.safetensors( by xet: \w+: .+|: xet ended after 0 of 3158073 bytes, and does not say why)"
    with pytest.raises(NetworkError) as raised:
        bring(cas, target)
    assert re.fullmatch(says, raised.value.message)
    assert sum(request.startswith("HEAD") for request in cas.requests) == QUICK.attempts
    assert left(target) == []


def test_what_hf_xet_raises_has_a_name_and_no_signature(tmp_path: Path) -> None:
    code = """
import hf_xet
from dsv4_stack.errors import Dsv4Error
from dsv4_stack.guest import xet_client
for kind in (hf_xet.XetAuthenticationError, hf_xet.XetObjectNotFoundError, ConnectionError, RuntimeError):
    try:
        with xet_client.named("a file"):
            raise kind("no luck: https://cdn.example/xorb?Signature=s&Expires=1 (403)")
    except Dsv4Error as error:
        print(f"{type(error).__name__}: {error.message}")
"""
    assert in_the_clients_environment(code, tmp_path) == (
        "NotAllowedError: a file by xet: XetAuthenticationError: no luck: https://cdn.example/xorb (403)\n"
        "NotFoundError: a file by xet: XetObjectNotFoundError: no luck: https://cdn.example/xorb (403)\n"
        "NetworkError: a file by xet: ConnectionError: no luck: https://cdn.example/xorb (403)\n"
        "NetworkError: a file by xet: RuntimeError: no luck: https://cdn.example/xorb (403)\n"
    )


def test_a_file_that_the_hub_does_not_have(cas: Cas, target: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        bring(cas, target, path="gone.safetensors")
    assert raised.value.message == f"org/model@{REVISION} has no gone.safetensors"


def test_a_file_that_is_in_no_xet_storage(cas: Cas, target: Path) -> None:
    cas.has_xet = False
    with pytest.raises(NotAllowedError) as raised:
        bring(cas, target)
    assert raised.value.message == (
        f"model.safetensors: plain HTTP is refused, and org/model@{REVISION} offers it by no other way"
    )


def test_a_users_no_to_xet_holds(cas: Cas, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "yes")
    with pytest.raises(NotAllowedError) as raised:
        bring(cas, target)
    assert raised.value.message == (
        "model.safetensors: plain HTTP is refused, and HF_HUB_DISABLE_XET forbids the other way"
    )
    assert cas.requests == []


def test_fewer_bytes_than_were_promised(cas: Cas, target: Path) -> None:
    with pytest.raises(NetworkError) as raised:
        bring(cas, target, size=cas.size + 1, patience=xet.Patience(attempts=1))
    assert str(raised.value) == (
        f"model.safetensors: xet ended after {cas.size} of {cas.size + 1} bytes, and does not say why\n  next: {KEPT}"
    )


def test_a_full_disk_has_its_own_name(cas: Cas, target: Path) -> None:
    (target.parent / part(cas)).parent.mkdir()
    (target.parent / part(cas)).symlink_to("/dev/full")
    with pytest.raises(NoSpaceError) as raised:
        bring(cas, target)
    assert raised.value.message == f"{target.parent / part(cas)}: No space left on device"


def test_a_wrong_header_ends_it_also_where_the_shard_comes_by_xet(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, name = world.root / BASE / SHARDS[0], f"{BASE}/{SHARDS[0]}"
    shard.write_bytes(shard.read_bytes().replace(b'"layer.0"', b'"layer.9"'))
    with serving(Cas(content=shard)) as cas:
        faults = world.server.faults
        faults.xet[name], faults.cas = hashlib.sha256(b"x").hexdigest(), cas.url
        faults.xet_only.add(name)
        assert world.materialize("--base", BASE) == 6
        assert cas.served > 0
    output = capsys.readouterr().err
    assert output[output.index("error: ") :] == (
        f"error: {SHARDS[0]} is no whole safetensors file: lacks tensors that the index puts there: layer.0\n"
        "  next: take it from a revision or a folder where it is whole\n"
    )
    assert [path for path in world.dest.rglob(f"*{SHARDS[0]}*") if path.is_file()] == []
