"""How two configs differ, in words."""

import copy
import json
from typing import Any

import pytest
from helpers.hub import CONFIG_BASE
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest import convert
from dsv4_stack.guest.checkpoint.difference import difference

LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
)
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("ours", "theirs", "lines"),
    [
        ({"a": {"b": 4}}, {"a": {"b": 8}}, ["a.b: 4 -> 8"]),
        ({"a": 1}, {}, ["a: removed 1"]),
        ({}, {"a": {"b": None}}, ['a: added {"b": null}']),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a[1]: 2 -> 3"]),
        ({"a": [1]}, {"a": [1, [2]]}, ["a[1]: added [2]"]),
        ({"a": [1, {}]}, {"a": [1]}, ["a[1]: removed {}"]),
        ({"a.b": 1, "": 2}, {"a.b": 2, "": 3}, ['["a.b"]: 1 -> 2', '[""]: 2 -> 3']),
        ({"a": True}, {"a": 1}, ["a: true -> 1"]),
        ({"a": 10}, {"a": 10.0}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": {}}, {"a": []}, ["a: {} -> []"]),
        (1, 2, ["(whole): 1 -> 2"]),
    ],
)
def test_each_difference_is_one_line(ours: object, theirs: object, lines: list[str]) -> None:
    assert difference(ours, theirs) == lines


@given(JSON)
def test_nothing_differs_from_itself_whatever_its_spelling(value: object) -> None:
    assert difference(value, json.loads(json.dumps(value, sort_keys=True, indent=3))) == []


@given(JSON, JSON)
def test_both_directions_see_as_many_differences(ours: object, theirs: object) -> None:
    assert len(difference(ours, theirs)) == len(difference(theirs, ours))


@given(st.data())
def test_no_change_of_a_real_config_is_overlooked(data: st.DataObject) -> None:
    base = CONFIG_BASE.read_bytes()
    config = json.loads(convert.convert(base, "base")[1])
    changed = copy.deepcopy(config)
    target: Any = changed
    keys = st.sampled_from([key for key in config if key != "_w4a8_conversion"])
    key = data.draw(keys)
    while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
        target = target[key]
        key = data.draw(st.sampled_from(list(target)))
    if data.draw(st.booleans()):
        del target[key]
    else:
        target[key] = ["something", "else"]
    kind, lines = convert.compare_overlay(base, json.dumps(changed).encode(), "base", "overlay")
    assert (kind, lines) == ("w4a8", difference(config, changed))
    assert lines
