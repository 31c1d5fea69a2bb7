"""Whatever bytes others send: a value that holds, or the error that is documented, and nothing else.

DSV4_FUZZ_EXAMPLES=20000 looks longer.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub.hf_api import ModelInfo
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dsv4_stack.errors import (
    ConfigError,
    Dsv4Error,
    IntegrityError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from dsv4_stack.guest import convert, hub
from dsv4_stack.guest.checkpoint import index, journal, locked, manifest, names, specs, tensors
from dsv4_stack.guest.checkpoint.documents import json_object
from dsv4_stack.guest.checkpoint.manifest import Entry, Manifest
from dsv4_stack.guest.demo import seed

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("DSV4_FUZZ_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FUZZ = settings(settings.get_profile("fuzz"))

SHA256, COMMIT = "a" * 64, "b" * 40
ENTRY = {"size": 10, "sha256": SHA256, "mtime_ns": 5, "origin": "base"}
INDEX = {
    "metadata": {"total_size": 8},
    "weight_map": {"a": "1.safetensors", "é": "1.safetensors", "c": "2.safetensors"},
}
HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
    "b": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]},
}
CONFIG = {
    "model_type": "x",
    "quantization_config": {
        "config_groups": {
            "g": {
                "targets": ["re:.*experts.*"],
                "weights": {"num_bits": 4, "type": "int", "strategy": "group"},
                "input_activations": None,
            }
        }
    },
}
MANIFEST = {
    "schema": 1,
    "tool": "x",
    "base": {"repo": "a/b", "requested": "main", "revision": COMMIT},
    "overlay": {"dir": "/o"},
    "config": "overlay",
    "conversion": "w4a8",
    "checked_against": "none",
    "files": {"config.json": ENTRY, "sub/model.safetensors": ENTRY},
}
LOCK = {
    "schema": 1,
    "repos": {"a/b": {"requested": "main", "revision": COMMIT, "files": {"x": {"size": 1, "sha256": SHA256}}}},
}
LISTING = {
    "id": "a/b",
    "sha": COMMIT,
    "siblings": [
        {"rfilename": "config.json", "size": 10, "blobId": COMMIT},
        {"rfilename": "m.safetensors", "size": 99, "lfs": {"size": 99, "sha256": SHA256, "pointerSize": 134}},
    ],
}

DEEP = b"[" * 50_000
TOKENS = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\0", b"\xff", b"\n", b"null", b"true", b"NaN", b"1e999"),
        *(b"-1", b'"a"', b'"\\ud800"', b'"../x"', b'"CON"', b"\\u0000", b"9" * 30, b"9" * 5000),
        *(DEEP, b'{"a":' * 50_000, b"[" * 500 + b"]" * 500),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("../x") | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def changed(draw: st.DrawFn, valid: Any) -> Any:  # noqa: ANN401
    """The document with another value, key or element somewhere, or without one."""
    document = json.loads(json.dumps(valid))
    inner = document
    while True:
        key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.integers(0, 4)) == 0:
            break
        inner = inner[key]
    action = draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "remove":
        del inner[key]
    elif action == "replace":
        inner[key] = draw(VALUES)
    elif isinstance(inner, dict):
        inner[draw(st.text(max_size=4))] = inner[key]
    else:
        inner.append(draw(VALUES))
    return document


@st.composite
def cut(draw: st.DrawFn, valid: bytes) -> bytes:
    """The bytes with some of them overwritten, taken out or put in."""
    start = draw(st.integers(0, len(valid)))
    end = min(len(valid), start + draw(st.integers(0, 12)))
    return (
        valid[:start] + draw(TOKENS | st.binary(max_size=4)) + draw(st.sampled_from([valid[end:], valid[start:], b""]))
    )


def texts(valid: Any) -> st.SearchStrategy[bytes]:  # noqa: ANN401
    """Any bytes, and those that have much in common with this document's."""
    text = json.dumps(valid).encode()
    return st.binary(max_size=60) | cut(text) | changed(valid).map(lambda document: json.dumps(document).encode())


def outcome(parse: Callable[[], Any], *errors: type[Dsv4Error]) -> Any:  # noqa: ANN401
    """What it makes of it; None where it raises one of these, with a fact and a next step that can be printed."""
    try:
        return parse()
    except errors as error:
        assert error.message  # noqa: PT017 - that nothing else is raised is the test
        assert error.next_step  # noqa: PT017
        str(error).encode(errors="backslashreplace")
        return None


@FUZZ
@given(texts(INDEX))
@example(DEEP)
def test_index(content: bytes) -> None:
    found = outcome(lambda: index.parse(content, "x"), IntegrityError)
    if found:
        weight_map = json.loads(content)["weight_map"]
        assert {tensor: path for path, tensors in found.shards.items() for tensor in tensors} == weight_map


@FUZZ
@given(texts(HEADER), st.integers(0, 12), st.sampled_from([None, [], ["a"], ["a", "b"]]))
def test_safetensors_header(content: bytes, data: int, expected: list[str] | None) -> None:
    def check() -> bool:
        tensors.check(content, 8 + len(content) + data, "x", expected)
        return True

    if outcome(check, IntegrityError):
        header = json.loads(content)
        header.pop("__metadata__", None)
        assert sum(end - begin for begin, end in (entry["data_offsets"] for entry in header.values())) == data
        assert set(expected or ()) <= header.keys()


@FUZZ
@given(texts(HEADER), st.binary(max_size=12), st.none() | st.integers(0, 2**64 - 1))
def test_safetensors_file(tmp_path: Path, header: bytes, data: bytes, length: int | None) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    outcome(lambda: tensors.check_file(path, ["a"], "x"), IntegrityError)


def test_the_documents_that_are_changed_are_right() -> None:
    assert index.parse(json.dumps(INDEX).encode(), "x").shards.keys() == {"1.safetensors", "2.safetensors"}
    header = json.dumps(HEADER).encode()
    tensors.check(header, 8 + len(header) + 10, "x", ["a", "b"])
    assert convert.convert(json.dumps(CONFIG).encode(), "x")[0] == "w4a8"
    assert len(manifest.parse(json.dumps(MANIFEST).encode(), "x").files) == 2


@FUZZ
@given(texts(CONFIG))
@example(DEEP)
def test_config(content: bytes) -> None:
    found = outcome(lambda: json_object(content, "x", 1 << 20, "mend it"), ConfigError)
    if found and not any(word in content for word in (b"1e999", b"Infinity")):
        assert repr(found) == repr(json.loads(content))
    outcome(lambda: convert.convert(content, "x"), ConfigError)
    base = json.dumps(CONFIG).encode()
    outcome(lambda: convert.compare_overlay(base, content, "x", "y"), ConfigError)
    outcome(lambda: convert.compare_overlay(content, base, "x", "y"), ConfigError)


@FUZZ
@given(texts(MANIFEST))
@example(DEEP)
def test_manifest(content: bytes) -> None:
    found = outcome(lambda: manifest.parse(content, "x"), IntegrityError)
    if found:
        assert isinstance(found, Manifest)
        assert names.problems_of(found.files) == []


@FUZZ
@given(st.lists(texts({"path": "a", **ENTRY}), max_size=3))
@example([DEEP])
def test_journal(tmp_path: Path, lines: list[bytes]) -> None:
    (tmp_path / ".dsv4").mkdir(exist_ok=True)
    (tmp_path / ".dsv4/journal.jsonl").write_bytes(b"\n".join(lines))
    found = journal.read(tmp_path)
    assert all(isinstance(path, str) and isinstance(entry, Entry) for path, entry in found.items())


@FUZZ
@given(texts(LOCK))
@example(DEEP)
def test_lock(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dsv4.lock"
    path.write_bytes(content)
    for repo in (outcome(lambda: locked.load(path), ConfigError) or {}).values():
        assert hub.COMMIT.fullmatch(repo.revision)
        assert all(type(size) is int and len(sha256) == 64 for size, sha256 in repo.files.values())


@pytest.mark.filterwarnings("ignore::UserWarning")
@FUZZ
@given(changed(LISTING))
@example(LISTING | {"sha": []})
@example(LISTING | {"siblings": [{"rfilename": 1, "size": 1, "blobId": COMMIT}]})
@example(LISTING | {"siblings": [{"rfilename": "a", "size": 1.5, "blobId": COMMIT}]})
def test_listing(document: Any) -> None:  # noqa: ANN401
    with mock.patch.object(huggingface_hub.HfApi, "model_info", side_effect=lambda *_, **__: ModelInfo(**document)):
        found = outcome(lambda: hub.snapshot("a/b", "main"), IntegrityError, NetworkError)
    if found:
        assert hub.COMMIT.fullmatch(found.revision)
        assert names.problems_of(file.path for file in found.files if names.is_wanted(file.path)) == []
        assert all(type(file.size) is int and file.size >= 0 for file in found.files)
        assert all(file.sha256 or hub.COMMIT.fullmatch(file.blob_id) for file in found.files)


@FUZZ
@given(
    st.text(max_size=20)
    | st.sampled_from(
        ["/", "./", "~", "~nobody-of-this-name", "a/b@", "/dev/null/", "/\0", "x" * 300, "/" + "x" * 300]
    ).flatmap(lambda start: st.text(max_size=4).map(start.__add__))
)
@example("~nobody-of-this-name")
@example("/\0")
@example("x" * 300)
@example("/" + "x" * 300)
def test_references(reference: str) -> None:
    found = outcome(lambda: specs.parse(reference), UsageError, NotFoundError)
    if isinstance(found, specs.HubSpec):
        assert reference in (found.repo, str(found))


@FUZZ
@given(st.lists(st.text(max_size=6) | st.text(st.sampled_from("aA./:\\é\u0301"), max_size=6), max_size=5))
def test_names(paths: list[str]) -> None:
    problems = names.problems_of(paths)
    assert len(problems) <= len(paths)
    if not problems:
        assert all(os.path.normpath(f"/root/{path}") == f"/root/{path}" for path in paths)
    assert all(isinstance(names.is_wanted(path, ["*.py"]), bool) for path in paths)


@FUZZ
@given(
    st.text(max_size=8) | st.text(st.sampled_from("a*?.[]!/-"), max_size=6),
    st.text(st.sampled_from("ab./"), min_size=1),
)
def test_a_pattern_that_is_accepted_takes_nothing_hidden(pattern: str, path: str) -> None:
    if not names.problem_of_pattern(pattern) and names.is_wanted(path, [pattern]):
        assert not any(part.startswith(".") for part in path.split("/"))


def test_the_demo_s_shards_with_any_bit_flipped_in_the_header(tmp_path: Path) -> None:
    content = bytearray(seed.base_files()["model-00001-of-00004.safetensors"])
    path = tmp_path / "x.safetensors"
    for place in range(0, 8 + int.from_bytes(content[:8], "little"), 3):
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        outcome(lambda: tensors.check_file(path, None, "x"), IntegrityError)
        content[place] ^= 1 << place % 8
