"""A shard's header: what the format allows, and every way in which it can be wrong."""

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import IntegrityError, NotFoundError
from dsv4_stack.guest.checkpoint import tensors
from dsv4_stack.guest.demo import safetensors, seed

STEP = "take it from a revision or a folder where it is whole"


def tensor(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header(**entries: object) -> bytes:
    return json.dumps(entries).encode()


def refused(content: bytes, data: int, expected: list[str] | None = None) -> str:
    """The fact that is wrong with this header, before `data` bytes."""
    with pytest.raises(IntegrityError) as raised:
        tensors.check(content, 8 + len(content) + data, "x", expected)
    start = "x is no whole safetensors file: "
    assert raised.value.message.startswith(start)
    assert raised.value.next_step == STEP
    return raised.value.message.removeprefix(start)


@pytest.mark.parametrize("name", [name for name in seed.base_files() if name.endswith(".safetensors")])
def test_the_demo_s_shards_are_right_and_short_of_one_byte_wrong(tmp_path: Path, name: str) -> None:
    content = seed.base_files()[name]
    index = json.loads(seed.base_files()["model.safetensors.index.json"])["weight_map"]
    expected = [tensor for tensor, shard in index.items() if shard == name]
    path = tmp_path / name
    path.write_bytes(content)
    tensors.check_file(path, expected, name)
    tensors.check_file(path, None, name)
    length = int.from_bytes(content[:8], "little")
    for size in (len(content) - 1, len(content) + 1):
        path.write_bytes(content.ljust(size, b"\0")[:size])
        with pytest.raises(IntegrityError) as raised:
            tensors.check_file(path, expected, name)
        assert raised.value.message == (
            f"{name} is no whole safetensors file: "
            f"its tensors take {len(content) - 8 - length} bytes, {size - 8 - length} follow the header"
        )


SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda n: n != "__metadata__"), SHAPES))
def test_what_our_writer_writes_is_right(shapes: dict[str, tuple[int, ...]]) -> None:
    def made(shape: tuple[int, ...]) -> safetensors.Tensor:
        return safetensors.Tensor(shape=shape, values=(0.0,) * math.prod(shape))

    content = safetensors.encode({name: made(shape) for name, shape in shapes.items()})
    length = tensors.header_length(content[:8], len(content), "x")
    tensors.check(content[8 : 8 + length], len(content), "x", list(shapes))


@pytest.mark.parametrize(
    ("first8", "size", "fact"),
    [
        (b"", 0, "has 0 bytes, fewer than the 8 of a header's length"),
        (b"\x01\0\0", 3, "has 3 bytes, fewer than the 8 of a header's length"),
        (b"\x03\0\0\0\0\0\0\0", 10, "its header would have 3 bytes, the whole file has 10"),
        (b"\x01\xe1\xf5\x05\0\0\0\0", 1 << 40, "its header would have 100000001 bytes, more than 100000000"),
        (b"\xff" * 8, 1 << 40, f"its header would have {2**64 - 1} bytes, more than 100000000"),
    ],
)
def test_a_length_that_cannot_be(first8: bytes, size: int, fact: str) -> None:
    with pytest.raises(IntegrityError) as raised:
        tensors.header_length(first8, size, "x")
    assert str(raised.value) == f"x is no whole safetensors file: {fact}\n  next: {STEP}"


def test_a_length_that_can() -> None:
    assert tensors.header_length(b"\x02\0\0\0\0\0\0\0", 10, "x") == 2
    assert tensors.header_length(b"\x00\xe1\xf5\x05\0\0\0\0", 1 << 40, "x") == tensors.HEADER_LIMIT


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (b"{}", 0),
        (b"{}   ", 0),
        (header(a=tensor(0, 4, [4])), 4),
        (header(a=tensor(0, 4, [4])) + b" " * 9, 4),
        (header(b=tensor(4, 8, [2, 2]), a=tensor(0, 4, [4])), 8),
        (header(a=tensor(0, 8, [], "F64"), none=tensor(8, 8, [0, 5]), b=tensor(8, 10, [], "BF16")), 10),
        (header(none=tensor(0, 0, [0])), 0),
        (header(a=tensor(0, 2, [4], "F4"), b=tensor(2, 5, [4], "F6_E2M3"), c=tensor(5, 13, [1], "C64")), 13),
        (header(__metadata__={}), 0),
        (header(__metadata__={"format": "pt", "config": '{"a": [{}]}'}, a=tensor(0, 4, [1], "I32")), 4),
        ('{"é\\"\\u00e9": {"shape":[1],"dtype":"F8_E8M0","data_offsets":[0,1]}}'.encode(), 1),
    ],
)
def test_headers_that_the_format_allows(content: bytes, data: int) -> None:
    tensors.check(content, 8 + len(content) + data, "x", None)


ONE = '{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
NOT_THREE = "tensor 'a' should have a dtype, a shape and data_offsets"
NO_VALUE = "byte 6 should begin a JSON value of at most 4096 bytes"
NO_NUMBERS = "tensor 'a': no list of whole numbers"
NOT_TWO = "tensor 'a': not two data_offsets, or more than 64 dimensions"


@pytest.mark.parametrize(
    ("content", "data", "fact"),
    [
        (b"", 0, "its header should begin with {"),
        (b" {}", 0, "its header should begin with {"),
        (b"[]", 0, "its header should begin with {"),
        (b"{", 0, "byte 1 should begin a string"),
        (b'{"a', 0, "byte 1 should begin a JSON value of at most 1048576 bytes"),
        (b'{"a\n": 1}', 0, "byte 1 should begin a JSON value of at most 1048576 bytes"),
        (b"{1: 2}", 0, "byte 1 should begin a string"),
        (b"{}{}", 0, "byte 2 should be the end"),
        (b"{}\0", 0, "byte 2 should be the end"),
        (f'{{"a" {ONE}}}'.encode(), 4, "byte 5 should be :"),
        (f'{{"a":{ONE}'.encode(), 4, "byte 52 should be ,"),
        (f'{{"a":{ONE},}}'.encode(), 4, "byte 53 should begin a string"),
        (f'{{"a":{ONE},"a":{ONE}}}'.encode(), 4, "'a' stands twice"),
        (b'{"\xff":1}', 0, "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b'{"a":  }', 0, "byte 7 should begin a JSON value of at most 4096 bytes"),
        (header(a=1), 0, NOT_THREE),
        (header(a={}), 0, NOT_THREE),
        (header(a=tensor(0, 4, [4]) | {"more": 1}), 4, NOT_THREE),
        (b'{"a": {"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}', 4, NO_VALUE),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", 4, NOT_THREE),
        (b'{"a": ' + b"[" * 5000, 4, NO_VALUE),
        (header(a=tensor(0, 4, [4], " " * 4096)), 4, NO_VALUE),
        (header(a=tensor(0, 4, [4], "u8")), 4, "tensor 'a': no dtype that is known"),
        (header(a=tensor(0, 4, [4]) | {"dtype": ["U8"]}), 4, "tensor 'a': no dtype that is known"),
        (header(a=tensor(0, 4, [4]) | {"shape": 4}), 4, NO_NUMBERS),
        (header(a=tensor(0, 4, [4]) | {"shape": [4.0]}), 4, NO_NUMBERS),
        (header(a=tensor(0, 4, [4]) | {"shape": [4, True]}), 4, NO_NUMBERS),
        (header(a=tensor(0, 4, [-4])), 4, NO_NUMBERS),
        (header(a=tensor(0, 4, [1 << 63, 0])), 4, NO_NUMBERS),
        (header(a=tensor(0, 4, [4]) | {"data_offsets": None}), 4, NO_NUMBERS),
        (header(a=tensor(0, 4, [4]) | {"data_offsets": [0, 4, 4]}), 4, NOT_TWO),
        (header(a=tensor(0, 1, [1] * 65)), 1, NOT_TWO),
        (header(a=tensor(0, 4, [5])), 4, "tensor 'a': its shape does not go with bytes 0 to 4"),
        (header(a=tensor(4, 0, [4])), 4, "tensor 'a': its shape does not go with bytes 4 to 0"),
        (header(a=tensor(0, 1, [3], "F4")), 1, "tensor 'a': its shape does not go with bytes 0 to 1"),
        (header(a=tensor(1, 5, [4])), 5, "a tensor begins at byte 1 of the data, the one before it ends at 0"),
        (
            header(a=tensor(0, 4, [4]), b=tensor(6, 8, [2])),
            8,
            "a tensor begins at byte 6 of the data, the one before it ends at 4",
        ),
        (
            header(a=tensor(0, 4, [4]), b=tensor(2, 6, [4])),
            6,
            "a tensor begins at byte 2 of the data, the one before it ends at 4",
        ),
        (
            header(a=tensor(0, 4, [4]), b=tensor(0, 4, [4])),
            4,
            "a tensor begins at byte 0 of the data, the one before it ends at 4",
        ),
        (header(a=tensor(0, 4, [4])), 3, "its tensors take 4 bytes, 3 follow the header"),
        (header(a=tensor(0, 4, [4])), 5, "its tensors take 4 bytes, 5 follow the header"),
        (header(__metadata__=1), 0, "byte 17 should be {"),
        (header(__metadata__={"a": 1}), 0, "byte 23 should begin a string"),
        (b'{"__metadata__":{"a":"","a":""}}', 0, "__metadata__: 'a' stands twice"),
    ],
)
def test_headers_that_it_does_not(content: bytes, data: int, fact: str) -> None:
    assert refused(content, data) == fact


def test_tensors_that_the_index_promises() -> None:
    content = header(a=tensor(0, 4, [4]), b=tensor(4, 8, [4]))
    tensors.check(content, 8 + len(content) + 8, "x", ["a"])
    tensors.check(content, 8 + len(content) + 8, "x", frozenset())
    lacks = "lacks tensors that the index puts there: "
    assert refused(content, 8, ["c", "b"]) == f"{lacks}c"
    assert refused(content, 8, ["f", "e", "d", "c", "a"]) == f"{lacks}c, d, e and 1 more"
    assert refused(header(__metadata__={}), 0, ["__metadata__"]) == f"{lacks}__metadata__"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        tensors.check_file(tmp_path / "x.safetensors", None, "x")


def test_a_header_of_seventeen_thousand_tensors_takes_a_few_mebibytes(tmp_path: Path) -> None:
    names = [
        f"model.layers.{place // 300}.mlp.experts.{place % 300}.gate_proj.weight_packed" for place in range(17_300)
    ]
    entries = {name: tensor(4 * place, 4 * place + 4, [1], "I32") for place, name in enumerate(names)}
    content = header(**entries)
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + 4 * len(names))
    del entries, content
    tracemalloc.start()
    tensors.check_file(path, names, "x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20
