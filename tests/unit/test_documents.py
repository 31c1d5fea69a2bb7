"""A config.json as data: bounded, strict, and read the same by everyone."""

import json
from typing import Any

import pytest
from helpers.hub import CONFIG_BASE
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.checkpoint.documents import DEPTH, json_object

LIMIT = 1000


def read(content: bytes) -> dict[str, Any]:
    return json_object(content, "a/config.json", LIMIT, "mend it")


def nested(depth: int) -> bytes:
    return b'{"a": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" " * 1001, "has more than 1000 bytes; no config.json has"),
        (b"", "is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"{} {}", "is not JSON: Extra data: line 1 column 4 (char 3)"),
        (b"[]", "should hold a JSON object"),
        (b"null", "should hold a JSON object"),
        (b'{"a": NaN}', "is not JSON: NaN is no JSON number"),
        (b'{"a": -Infinity}', "is not JSON: -Infinity is no JSON number"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "is not JSON: the key 'b' stands twice in one object"),
        (b"{\xff}", "is not JSON: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (b"\xef\xbb\xbf{}", "is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (nested(DEPTH), "is not JSON: nested too deeply"),
        (nested(400), "is not JSON: nested too deeply"),
    ],
)
def test_what_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(content)
    assert str(raised.value) == f"a/config.json {message}\n  next: mend it"


def test_recursion_is_bounded_whatever_the_parser_does() -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        json_object(b"[" * 500_000, "x", 1 << 20, "mend it")


def test_a_huge_number_is_no_crash() -> None:
    with pytest.raises(ConfigError, match="is not JSON: Exceeds the limit"):
        json_object(b'{"a": ' + b"9" * 5000 + b"}", "x", 1 << 20, "mend it")


def test_the_real_config_and_the_deepest_one() -> None:
    content = CONFIG_BASE.read_bytes()
    assert json_object(content, "x", len(content), "") == json.loads(content)
    assert read(nested(DEPTH - 1)) == json.loads(nested(DEPTH - 1))


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_what_is_valid_is_read_as_it_is(document: dict[str, Any]) -> None:
    content = json.dumps(document).encode()
    assert list(json_object(content, "x", len(content), "").items()) == list(document.items())
