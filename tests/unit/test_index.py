"""The index of a checkpoint: which tensors belong into which shard."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest.checkpoint import index
from dsv4_stack.guest.demo import seed

NO_MAP = "x has no weight_map from tensors to files: "
NO_SHARDS = "x names files that are no shards:\n"
TENSORS = st.text(st.characters(codec="utf-8"), max_size=8).filter(str.isprintable)
SHARDS = st.sampled_from(["a.safetensors", "b.safetensors", "sub/c.safetensors"])


def shards(content: bytes) -> dict[str, list[str]]:
    return {path: list(tensors) for path, tensors in index.parse(content, "x").shards.items()}


@given(
    weight_map=st.dictionaries(TENSORS, SHARDS, min_size=1),
    indent=st.sampled_from([None, 1, "\t"]),
    ascii_only=st.booleans(),
)
def test_every_tensor_is_found_in_its_shard(
    *, weight_map: dict[str, str], indent: int | str | None, ascii_only: bool
) -> None:
    document = {"metadata": {"total_size": 1, "more": [{}]}, "weight_map": weight_map, "z": None}
    found = index.parse(json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(), "x").shards
    assert list(found) == list(dict.fromkeys(weight_map.values()))
    for path, tensors in found.items():
        expected = [tensor for tensor, shard in weight_map.items() if shard == path]
        assert list(tensors) == expected
        assert len(tensors) == len(expected)
        assert all(tensor in tensors for tensor in expected)
        assert "not there" not in tensors


def test_the_demo_s_own() -> None:
    content = seed.base_files()["model.safetensors.index.json"]
    weight_map = json.loads(content)["weight_map"]
    assert {tensor: path for path, tensors in shards(content).items() for tensor in tensors} == weight_map


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", f"{NO_MAP}byte 0 should be {{"),
        (b"[]", f"{NO_MAP}byte 0 should be {{"),
        (b"{}", f"{NO_MAP}there is none, or it is empty"),
        (b'{"weight_map": {}}', f"{NO_MAP}there is none, or it is empty"),
        (b'{"weight_map": {"a": "a.safetensors"}', f"{NO_MAP}byte 37 should be ,"),
        (b'{"weight_map": {"a": "a.safetensors"}} x', f"{NO_MAP}byte 39 should be the end"),
        (b'{"weight_map": ["a.safetensors"]}', f"{NO_MAP}byte 15 should be {{"),
        (b'{"weight_map": null}', f"{NO_MAP}byte 15 should be {{"),
        (b'{"weight_map": {"a": 1}}', f"{NO_MAP}byte 21 should begin a string"),
        (b'{"weight_map": {"a": {"a": "b"}}}', f"{NO_MAP}byte 21 should begin a string"),
        (b'{"weight_map": {"a": "a.safetensors", "a": "a.safetensors"}}', f"{NO_MAP}the tensor 'a' stands twice"),
        (b'{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}', f"{NO_MAP}the tensor 'a' stands twice"),
        (b'{"weight_map": {"a": "a.safetensors", "\\u0061": "b.safetensors"}}', f"{NO_MAP}the tensor 'a' stands twice"),
        (b'{"weight_map": {"a": "a.safetensors"}, "weight_map": {}}', f"{NO_MAP}the key 'weight_map' stands twice"),
        (b'{"weight_map": {"a\\nb": "a.safetensors"}}', f"{NO_MAP}the tensor 'a\\nb' has an unprintable name"),
        (b'{"weight_map": {"\\ud800": "a.safetensors"}}', f"{NO_MAP}the tensor '\\ud800' has an unprintable name"),
        (
            b'{"weight_map": {"\xff": "a.safetensors"}}',
            f"{NO_MAP}'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (b'{"metadata": ' + b"[" * 100_000, f"{NO_MAP}byte 13 should begin a JSON value of at most 65536 bytes"),
        (b'{"metadata": ' + b"9" * 9999, f"{NO_MAP}byte 13 should begin a JSON value of at most 65536 bytes"),
        (b'{"metadata": NaN}', f"{NO_MAP}byte 13 should begin a JSON value of at most 65536 bytes"),
        (
            b'{"weight_map": {"a": "../a.safetensors", "b": "/b.safetensors", "c": "c.bin"}}',
            (
                f"{NO_SHARDS}  '../a.safetensors': empty, . or .. part\n  '/b.safetensors': absolute\n"
                "  'c.bin': no .safetensors file"
            ),
        ),
        (
            b'{"weight_map": {"a": "a.safetensors", "b": "A.safetensors"}}',
            f"{NO_SHARDS}  'A.safetensors': differs from 'a.safetensors' in case only",
        ),
        (b" " * (1 + (64 << 20)), "x has more than 67108864 bytes; no index has"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_index(content: bytes, message: str) -> None:
    with pytest.raises(IntegrityError) as raised:
        index.parse(content, "x")
    assert (raised.value.message, raised.value.next_step) == (message, "pin another revision")


def test_an_index_of_many_tensors_takes_little_more_than_its_bytes() -> None:
    weight_map = {
        f"model.layers.{place // 300}.mlp.experts.{place % 300}.gate_proj.weight_packed": f"{place % 4}.safetensors"
        for place in range(20_000)
    }
    content = json.dumps({"weight_map": weight_map}).encode()
    del weight_map
    tracemalloc.start()
    found = index.parse(content, "x")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(tensors) for tensors in found.shards.values()) == 20_000
    assert kept < len(content)
    assert peak < 2.5 * len(content)
