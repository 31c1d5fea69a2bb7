"""`dsv4 lock` against a Hub, a wheel server and a registry on loopback: what it asks and writes, and when it fails."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import file_server
from helpers.hub import BASE, OVERLAY, SHARDS, World
from helpers.pinned import IMAGES
from helpers.wheels_made import make_wheel

from dsv4_stack import __main__ as cli

pytest_plugins = ["helpers.hub_fixtures"]

DIGEST = "sha256:" + "d" * 64


@dataclass(frozen=True, kw_only=True)
class Site:
    """A pins.toml with everything unlocked, its lock, and what serves the wheel and the image's digest."""

    lock: Path
    web: file_server.Site
    world: World

    @property
    def url(self) -> str:
        return f"{self.web.url}/vllm.whl"

    @property
    def image(self) -> str:
        return f"{self.web.host}/org/name:tag"

    @property
    def wheel(self) -> bytes:
        return self.web.files["/vllm.whl"]

    def read(self) -> dict[str, dict[str, dict[str, object]]]:
        return dict(json.loads(self.lock.read_text()))


@pytest.fixture
def site(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with file_server.serving() as web:
        found = Site(lock=tmp_path / "dsv4.lock", web=web, world=world)
        web.files["/vllm.whl"] = make_wheel(tmp_path, "vllm", "1.0").read_bytes()
        web.digests["org/name:tag"] = DIGEST
        (tmp_path / "pins.toml").write_text(
            f'schema = 1\ndefault_engine = "nightly"\n[images]\n{IMAGES}'
            f'[engines.nightly]\nabout = "a commit"\nimage = "serve"\nversion = "1"\nbase = "{found.image}"\n'
            f'releases = ["0.24.0"]\n[engines.nightly.wheel]\nurl = "{found.url}"\nsha256 = ""\n'
            '[releases."0.24.0"]\ntorch = "2"\ntransformers = ">=5"\nrunner = "V1"\n'
            f'wheel = {{ url = "{found.url}", sha256 = "" }}\n'
            '[checkpoints.w4a8]\nconfig = "overlay"\n'
            f'base = {{ repo = "{BASE}", revision = "{world.revision(BASE)}" }}\n'
            f'overlay = {{ repo = "{OVERLAY}", revision = "" }}\n'
        )
        monkeypatch.setenv("DSV4_PINS", str(tmp_path / "pins.toml"))
        monkeypatch.setenv("DSV4_LOCK", str(tmp_path / "dsv4.lock"))
        yield found


def test_an_empty_lock_is_incomplete(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lock", "--check"]) == 1
    assert capsys.readouterr().err == (
        f"error: {site.lock} is incomplete:\n"
        f"  engine nightly: digest of {site.image} unlocked\n"
        "  engine nightly: wheel sha256 unlocked\n"
        f"  repo {BASE}: file sizes and sha256 unlocked\n"
        f"  repo {OVERLAY}: revision of main unlocked\n"
        "  next: run: dsv4 lock\n"
    )


def test_lock_writes_down_what_the_network_says(site: Site) -> None:
    assert cli.main(["lock"]) == 0
    found = site.read()
    with zipfile.ZipFile(io.BytesIO(site.wheel)) as archive:
        record = hashlib.sha256(archive.read("vllm-1.0.dist-info/RECORD")).hexdigest()
    sha256 = hashlib.sha256(site.wheel).hexdigest()
    assert found["engines"] == {
        "nightly": {"url": site.url, "sha256": sha256, "size": len(site.wheel), "record": record}
    }
    assert found["images"] == {site.image: DIGEST}
    base, overlay = found["repos"][BASE], found["repos"][OVERLAY]
    assert (base["requested"], base["revision"]) == (site.world.revision(BASE), site.world.revision(BASE))
    assert (overlay["requested"], overlay["revision"]) == ("main", site.world.revision(OVERLAY))
    files = base["files"]
    assert isinstance(files, dict)
    assert set(SHARDS) < files.keys()
    for path, entry in files.items():
        content = (site.world.root / BASE / path).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert cli.main(["lock", "--check"]) == 0


def test_a_second_lock_asks_nobody_and_changes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lock"]) == 0
    before = site.lock.read_bytes()
    site.world.forget_requests()
    site.web.requests.clear()
    capsys.readouterr()
    assert cli.main(["lock", "--json"]) == 0
    assert capsys.readouterr().out.encode() == site.lock.read_bytes() == before
    assert (site.world.server.requests, site.web.requests) == ([], [])


def test_what_has_moved_is_named_and_upgrade_follows_it(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["lock"]) == 0
    old = site.world.revision(OVERLAY)
    (site.world.root / OVERLAY / "README.md").write_text("# another\n")
    size = len(site.wheel)
    site.web.files["/vllm.whl"] = make_wheel(tmp_path, "vllm", "1.0", files={"vllm/new.py": ""}).read_bytes()
    site.web.digests["org/name:tag"] = DIGEST.replace("d", "e")
    capsys.readouterr()
    assert cli.main(["lock", "--check"]) == 1
    new = site.world.revision(OVERLAY)
    assert capsys.readouterr().err == (
        "error: the lock is out of date:\n"
        f"  {site.image} is now {DIGEST.replace('d', 'e')}, the lock says {DIGEST}\n"
        f"  engine nightly: {site.url} has {len(site.wheel)} bytes, the lock says {size}\n"
        f"  {OVERLAY}: main is now {new}, the lock says {old}\n"
        "  next: run: dsv4 lock --upgrade\n"
    )
    assert cli.main(["lock", "--upgrade"]) == 0
    assert cli.main(["lock", "--check"]) == 0
    assert site.read()["repos"][OVERLAY]["revision"] == new


def test_another_wheel_of_the_same_size_has_moved(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (
        make_wheel(tmp_path / text, "vllm", "1.0", files={"vllm/a.py": text}).read_bytes() for text in "ab"
    )
    assert len(before) == len(after)
    site.web.files["/vllm.whl"] = before
    assert cli.main(["lock"]) == 0
    site.web.files["/vllm.whl"] = after
    capsys.readouterr()
    assert cli.main(["lock", "--check"]) == 1
    assert f"  engine nightly: {site.url} is another wheel of the same size\n" in capsys.readouterr().err


def test_a_wheel_that_is_gone_leaves_the_lock_alone(site: Site) -> None:
    del site.web.files["/vllm.whl"]
    assert cli.main(["lock"]) == 4
    assert not site.lock.exists()


def test_an_unreachable_hub_leaves_the_lock_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert cli.main(["lock"]) == 8
    assert not site.lock.exists()
