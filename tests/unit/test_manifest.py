"""The manifest: what is written is read back, and nothing else is taken for one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import IntegrityError, NotFoundError
from dsv4_stack.guest.checkpoint import manifest, names
from dsv4_stack.guest.checkpoint.manifest import (
    CheckedAgainst,
    ConfigKind,
    Entry,
    FolderRecord,
    HubRecord,
    Manifest,
    Origin,
)

STEP = "run: dsv4 materialize, which writes it"
SHA256 = "a" * 64
COMMIT = "b" * 40
HASH = "files.config.json.sha256"
EXAMPLE = Manifest(
    tool="dsv4-stack 1.0",
    base=HubRecord(repo="org/base", requested="main", revision=COMMIT),
    overlay=FolderRecord(dir="/overlay"),
    config=ConfigKind.OVERLAY,
    conversion="w4a8",
    checked_against=CheckedAgainst.NONE,
    files={
        "model.safetensors": Entry(size=1000, sha256=SHA256, mtime_ns=5, origin=Origin.BASE, inode=7),
        "config.json": Entry(size=10, sha256=SHA256, mtime_ns=6, origin=Origin.OVERLAY),
    },
    allow=("*.py",),
    examined_for="vLLM 0.24.0 on 2 GPUs",
)
TEXT = f"""{{
  "schema": 1,
  "tool": "dsv4-stack 1.0",
  "base": {{
    "repo": "org/base",
    "requested": "main",
    "revision": "{COMMIT}"
  }},
  "overlay": {{
    "dir": "/overlay"
  }},
  "config": "overlay",
  "conversion": "w4a8",
  "checked_against": "none",
  "allow": [
    "*.py"
  ],
  "examined_for": "vLLM 0.24.0 on 2 GPUs",
  "files": {{
    "config.json": {{
      "size": 10,
      "sha256": "{SHA256}",
      "mtime_ns": 6,
      "origin": "overlay",
      "inode": null
    }},
    "model.safetensors": {{
      "size": 1000,
      "sha256": "{SHA256}",
      "mtime_ns": 5,
      "origin": "base",
      "inode": 7
    }}
  }}
}}
"""


def test_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / ".dsv4").mkdir()
    manifest.store(tmp_path, EXAMPLE)
    assert (tmp_path / ".dsv4" / "manifest.json").read_text() == TEXT
    assert [path.name for path in (tmp_path / ".dsv4").iterdir()] == ["manifest.json"]
    assert manifest.load(tmp_path) == EXAMPLE
    assert (EXAMPLE.size, str(EXAMPLE)) == (1010, "w4a8 from org/base@bbbbbbbbbbbb…")


def test_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        manifest.load(tmp_path)
    assert str(raised.value) == f"{tmp_path} has no manifest, so it is not materialized\n  next: {STEP}"


def changed(*path: str, value: object) -> bytes:
    document = json.loads(TEXT)
    target = document
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "manifest should be an object"),
        (b"\xff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (changed("schema", value=2), "schema should be 1, not 2"),
        (changed("schema", value=...), "schema should be 1, not null"),
        (changed("files", value=[]), "files should be an object"),
        (changed("files", "../x", value={}), "files: '../x': empty, . or .. part"),
        (changed("files", "config.json", value=1), "files.config.json should be an object"),
        (changed("files", "config.json", "size", value=-1), "files.config.json.size should not be negative"),
        (changed("files", "config.json", "size", value=1.5), "files.config.json.size should be an integer"),
        (changed("files", "config.json", "size", value=True), "files.config.json.size should be an integer"),
        (changed("files", "config.json", "mtime_ns", value="1"), "files.config.json.mtime_ns should be an integer"),
        (
            changed("files", "config.json", "sha256", value="A" * 64),
            "files.config.json.sha256 should be hex as [0-9a-f]{64}",
        ),
        (changed("files", "config.json", "origin", value="moon"), "'moon' is not a valid Origin"),
        (changed("config", value="moon"), "'moon' is not a valid ConfigKind"),
        (changed("checked_against", value=None), "manifest.checked_against should be a string"),
        (changed("base", value=None), "base should be an object"),
        (changed("base", "revision", value="main"), "base.revision should be hex as [0-9a-f]{40}"),
        (changed("overlay", value={"dir": 1}), "overlay.dir should be a string"),
        (changed("conversion", value=1), "manifest.conversion should be a string"),
    ],
)
def test_what_is_none_is_named(content: bytes, problem: str) -> None:
    with pytest.raises(IntegrityError) as raised:
        manifest.parse(content, "manifest.json")
    assert str(raised.value) == f"manifest.json is no manifest: {problem}\n  next: {STEP}"


HEX = "0123456789abcdef"
ENTRIES = st.builds(
    Entry,
    size=st.integers(0, 2**63),
    sha256=st.text(HEX, min_size=64, max_size=64),
    mtime_ns=st.integers(),
    origin=st.sampled_from(Origin),
)
RECORDS = st.builds(FolderRecord, dir=st.text()) | st.builds(
    HubRecord, repo=st.text(), requested=st.text(), revision=st.text(HEX, min_size=40, max_size=40)
)
FILES = st.dictionaries(st.text(min_size=1, max_size=8), ENTRIES, max_size=4)
MANIFESTS = st.builds(
    Manifest,
    tool=st.text(),
    base=RECORDS,
    overlay=st.none() | RECORDS,
    config=st.sampled_from(ConfigKind),
    conversion=st.none() | st.text(),
    checked_against=st.sampled_from(CheckedAgainst),
    files=st.dictionaries(st.text(min_size=1, max_size=8), ENTRIES, max_size=4).filter(
        lambda d: not names.problems_of(d)
    ),
)


@given(MANIFESTS)
def test_any_manifest_is_read_back(tmp_path_factory: pytest.TempPathFactory, example: Manifest) -> None:
    folder = tmp_path_factory.getbasetemp() / "manifest"
    (folder / ".dsv4").mkdir(parents=True, exist_ok=True)
    manifest.store(folder, example)
    assert manifest.load(folder) == example


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_a_damaged_manifest_is_a_manifest_or_an_integrity_error(data: st.DataObject) -> None:
    document: Any = json.loads(TEXT)
    target = document
    key = data.draw(st.sampled_from(sorted(target)))
    while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
        target = target[key]
        key = data.draw(st.sampled_from(sorted(target)))
    target[key] = data.draw(JSON)
    content = json.dumps(document).encode()
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (content, content[:cut]):
        try:
            assert isinstance(manifest.parse(damaged, "x"), Manifest)
        except IntegrityError as error:
            assert error.message.startswith("x is no manifest: ")  # noqa: PT017
