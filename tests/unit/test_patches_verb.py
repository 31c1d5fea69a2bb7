"""`dsv4 patches` on the host: an engine's own wheel by hash, its neighbours where that is unlocked, a tree."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.file_server import Site, serving
from helpers.pinned import IMAGE, IMAGES
from helpers.vllm_tree import FILES, SERIES, write_tree
from helpers.wheels_made import make_wheel

from dsv4_stack import __main__ as cli
from dsv4_stack.guest.patching import series
from dsv4_stack.guest.patching.mapping_effect import MTP

NAMES = [patch.name for patch in series.load(SERIES)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A commit's engine, unlocked, between two releases, whose wheel is the small tree."""
    monkeypatch.setenv("DSV4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DSV4_PINS", str(tmp_path / "pins.toml"))
    monkeypatch.setenv("DSV4_LOCK", str(tmp_path / "dsv4.lock"))
    data = make_wheel(tmp_path, "vllm", "0.23.0", files=FILES).read_bytes()
    with serving() as served:
        served.files["/a.whl"] = data
        wheel = f'wheel = {{ url = "{served.url}/a.whl", {hashes(data)} }}\n'
        facts = 'torch = "2"\ntransformers = ">=5"\nrunner = "V1"\n' + wheel
        (tmp_path / "pins.toml").write_text(
            f'schema = 1\ndefault_engine = "commit"\n[images]\n{IMAGES}'
            f'[engines.commit]\nabout = "a"\nimage = "serve"\nversion = "1"\nbase = "{IMAGE}"\n'
            f'releases = ["0.24.0", "0.25.1"]\nwheel = {{ url = "{served.url}/a.whl", sha256 = "" }}\n'
            f'[releases."0.24.0"]\n{facts}[releases."0.25.1"]\n{facts}[releases."0.30.0"]\n{facts}[checkpoints]\n'
        )
        yield served


def hashes(data: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        record = hashlib.sha256(archive.read("vllm-0.23.0.dist-info/RECORD")).hexdigest()
    return f'sha256 = "{hashlib.sha256(data).hexdigest()}", record = "{record}"'


def test_an_unlocked_commit_is_vouched_for_by_its_neighbours(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patches", "check"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:3] for line in out.splitlines()] == [
        [f"{release}:", name, "applies"] for release in ("0.24.0", "0.25.1") for name in NAMES
    ]
    assert err == (
        "engine commit: its wheel is unlocked (dsv4 lock); 0.24.0 and 0.25.1 speak for it\n"
        f"fetching the Python files of {site.url}/a.whl\n"
    )


def test_a_locked_commit_is_checked_itself_too(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = dict(pair.split(" = ") for pair in hashes(site.files["/a.whl"]).split(", "))
    wheel = {key: value.strip('"') for key, value in fields.items()}
    locked = {"url": f"{site.url}/a.whl", "size": len(site.files["/a.whl"]), **wheel}
    (tmp_path / "dsv4.lock").write_text(json.dumps({"schema": 1, "engines": {"commit": locked}, "repos": {}}))
    assert cli.main(["patches", "check", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["commit", "0.24.0", "0.25.1"]
    assert [entry["state"] for entry in found["commit"]] == ["applies"] * 5


def test_one_release_fails_and_the_others_are_told_still(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.files
    assert cli.main(["patches", "check", "--release", "all"]) == 11
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 10
    assert err.count("error: 4 of 5 patches fail on vLLM 0.30.0 in ") == 1
    assert cli.main(["patches", "check", "--release", "0.9.9"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no release '0.9.9' in pins.toml\n  next: choose one of: all, 0.24.0, 0.25.1, 0.30.0\n"
    )


def test_a_tree_that_is_there_needs_no_network(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(tmp_path / "tree")
    assert cli.main(["patches", "check", "--source", str(tree)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tree} holds vLLM 0.23.0, and engine commit is 0.24.0 or 0.25.1\n"
        "  next: name the engine of that release with --engine\n"
    )
    (tree / "vllm/_version.py").write_text("version = '0.25.1+cu129'\n")
    assert cli.main(["patches", "check", "--source", str(tree)]) == 0
    capsys.readouterr()
    (tree / "vllm/_version.py").unlink()
    assert cli.main(["patches", "check", "--source", str(tree)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    (tree / MTP).unlink()
    assert cli.main(["patches", "check", "--source", str(tree)]) == 11
    assert capsys.readouterr().err == (
        f"error: 1 of 5 patches fail on vLLM 0.24.0 in {tree}:\n"
        f"  0002-packed-modules-mapping-mtp: {MTP}: No such file or directory\n"
        f"  next: look into {tree}: is it the vLLM of the pins?\n"
    )
    assert cli.main(["patches", "check", "--source", str(tree), "--whole"]) == 2
    assert site.requests == []


def test_the_series_as_one_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patches", "diff", "--engine", "v0.33.0"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["patches", "diff", "--engine", "v0.30.0"]) == 0
    assert capsys.readouterr().out == (SERIES / f"{NAMES[2]}.patch").read_text().partition("\n---\n")[2]


def test_the_list_says_what_the_engine_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["patches", "list", "--engine", "v0.28.0", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(entry["patch"], entry["needed"]) for entry in entries] == list(
        zip(NAMES, [True, True, True, False, False], strict=True)
    )
    assert cli.main(["patches", "list", "--engine", "v0.28.0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1::5] == [
        "  v0.28.0: needs it; for 0.22.0 until before 0.29.0",
        "  v0.28.0: needs it; for 0.22.0 until before 0.29.0",
        "  v0.28.0: needs it; for 0.22.0 until before 0.33.0",
        "  v0.28.0: upstream has it; for 0.22.0 until before 0.27.0",
        "  v0.28.0: upstream has it; for 0.22.0 until before 0.28.0",
    ]
