"""A wheel's Python files by parts: what is fetched, what is proved, and every way in which it can be wrong."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.file_server import Site, serving
from helpers.wheels_made import make_wheel

from dsv4_stack import wheels
from dsv4_stack.errors import ConfigError, IntegrityError, NotFoundError
from dsv4_stack.releases import Wheel

FILES = {
    "vllm/__init__.py": "",
    "vllm/models/a.py": "A = 1\n",
    "vllm/_C.abi3.so": "x" * 2_000_000,
    "vllm/models/b.py": "B = 2\n",
    "other/c.py": "C = 3\n",
}
WANTED = [
    "vllm-1.0.dist-info/METADATA",
    "vllm-1.0.dist-info/RECORD",
    "vllm/__init__.py",
    "vllm/models/a.py",
    "vllm/models/b.py",
]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "cache"))
    with serving() as served:
        yield served


@pytest.fixture
def wheel(site: Site, tmp_path: Path) -> Wheel:
    path = make_wheel(tmp_path, "vllm", "1.0", files=FILES)
    site.files["/v.whl"] = path.read_bytes()
    return pinned(site, path.read_bytes())


def pinned(site: Site, data: bytes) -> Wheel:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        record = archive.read("vllm-1.0.dist-info/RECORD")
    sha256 = hashlib.sha256(data).hexdigest()
    return Wheel(url=f"{site.url}/v.whl", sha256=sha256, record=hashlib.sha256(record).hexdigest())


def quiet(_: str) -> None:
    pass


def names(tree: Path) -> list[str]:
    return sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())


def changed(data: bytes, name: str, content: bytes) -> bytes:
    """The same wheel with other bytes in one file; its RECORD is left as it was."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info, content if info.filename == name else old.read(info.filename))
    return out.getvalue()


def test_a_few_parts_are_fetched_and_the_second_time_none(site: Site, wheel: Wheel) -> None:
    said: list[str] = []
    tree = wheels.tree(wheel, said.append)
    assert names(tree) == WANTED
    assert (tree / "vllm/models/b.py").read_text() == "B = 2\n"
    assert said == [f"fetching the Python files of {wheel.url}"]
    first, *parts = [request.removeprefix("GET /v.whl bytes=") for request in site.requests]
    assert first == f"-{1 << 20}"
    spans = sorted(tuple(map(int, part.split("-"))) for part in parts)
    fetched = sum(end + 1 - start for start, end in spans)
    assert (len(spans), fetched < 5_000) == (2, True)
    site.requests.clear()
    assert wheels.tree(wheel, said.append) == tree
    assert (site.requests, len(said)) == ([], 1)


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_a_damaged_cache_is_fetched_again(damage: str, wheel: Wheel) -> None:
    file = wheels.tree(wheel, quiet) / "vllm/models/a.py"
    if damage == "change":
        file.write_text("A = 2\n")
    else:
        file.unlink()
    assert (wheels.tree(wheel, quiet) / "vllm/models/a.py").read_text() == "A = 1\n"


def test_the_whole_wheel_is_held_against_its_own_hash(site: Site, wheel: Wheel) -> None:
    assert names(wheels.tree(wheel, quiet, whole=True)) == WANTED
    assert site.requests == ["GET /v.whl"]
    with pytest.raises(IntegrityError, match=f"sha256 is {wheel.sha256}, {'0' * 64} was promised"):
        wheels.tree(replace(wheel, sha256="0" * 64), quiet, whole=True)


def test_a_server_that_sends_no_parts_sends_the_whole(site: Site, wheel: Wheel) -> None:
    site.parts = False
    assert names(wheels.tree(wheel, quiet)) == WANTED
    assert site.requests == [f"GET /v.whl bytes=-{1 << 20}", "GET /v.whl"]


@pytest.mark.parametrize("name", ["vllm/models/a.py", "vllm-1.0.dist-info/RECORD", "vllm-1.0.dist-info/METADATA"])
def test_another_byte_in_any_file_is_noticed(site: Site, wheel: Wheel, name: str) -> None:
    site.files["/v.whl"] = changed(site.files["/v.whl"], name, b"A = 4\n")
    with pytest.raises(IntegrityError) as raised:
        wheels.tree(wheel, quiet)
    assert str(raised.value) == (
        f"{wheel.url}: its files are not as pinned\n  next: run it again; if it stays, run it with --whole"
    )
    assert not (wheels.cache() / "wheels" / wheel.sha256).exists()
    assert list((wheels.cache() / "wheels").iterdir()) == []


def test_a_file_that_record_knows_and_the_wheel_lacks_is_noticed(site: Site, wheel: Wheel) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(site.files["/v.whl"])) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            if info.filename != "vllm/models/a.py":
                new.writestr(info, old.read(info.filename))
    site.files["/v.whl"] = out.getvalue()
    with pytest.raises(IntegrityError, match="its files are not as pinned"):
        wheels.tree(wheel, quiet)


def test_what_is_no_wheel_or_is_broken_says_so(site: Site, wheel: Wheel) -> None:
    data = site.files["/v.whl"]
    site.files["/v.whl"] = data.replace(b"B = 2\n", b"B = 9\n")
    assert site.files["/v.whl"] != data, "stored without compression"
    with pytest.raises(IntegrityError, match=r"its files cannot be unpacked: Bad CRC-32 for file 'vllm/models/b.py'"):
        wheels.tree(wheel, quiet)
    site.files["/v.whl"] = b"<html>"
    with pytest.raises(IntegrityError, match="is no wheel: File is not a zip file"):
        wheels.tree(wheel, quiet)
    del site.files["/v.whl"]
    with pytest.raises(NotFoundError):
        wheels.tree(wheel, quiet)


@pytest.mark.parametrize("unlocked", ["sha256", "record"])
def test_an_unlocked_wheel_asks_for_the_lock(wheel: Wheel, unlocked: str) -> None:
    with pytest.raises(ConfigError) as raised:
        wheels.tree(replace(wheel, **{unlocked: ""}), quiet)
    assert str(raised.value) == f"{wheel.url} is unlocked: its hash is not known\n  next: run: dsv4 lock"


def test_the_record_of_a_wheel_on_disk(tmp_path: Path, site: Site, wheel: Wheel) -> None:
    path = tmp_path / "v.whl"
    path.write_bytes(site.files["/v.whl"])
    assert wheels.record_sha256(path) == wheel.record
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(IntegrityError, match="has 0 RECORD files, not one"):
        wheels.record_sha256(path)
