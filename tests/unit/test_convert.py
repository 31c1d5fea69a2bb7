"""The W4A16 -> W4A8 edit of a config.json."""

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import CONFIG_BASE, dsv4
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest import convert
from dsv4_stack.guest.checkpoint.conversions import FP8_PER_TOKEN, CheckpointKind, conversion_of

NULL = '"input_activations": null'
FP8 = """"input_activations": {
          "num_bits": 8,
          "type": "float",
          "strategy": "token",
          "dynamic": true,
          "symmetric": true
        }"""
PROVENANCE = """  },
  "_w4a8_conversion": {
    "tool": "dsv4-stack",
    "changed": "quantization_config.config_groups.group_1.input_activations",
    "from": null,
    "to": {
      "num_bits": 8,
      "type": "float",
      "strategy": "token",
      "dynamic": true,
      "symmetric": true
    }
  }
}
"""
STEP = "give the config.json of the W4A16 checkpoint, or materialize with --config base"
GIVE = "give a checkpoint's config.json, or the folder that holds it"
NO_GROUP = (
    "the config has no int4 experts group: none of quantization_config.config_groups has weights of 4 bits, "
    'type "int", strategy "group" and a target that names experts'
)
CONVERTED = "the config is converted already"
EXPERTS = json.loads(CONFIG_BASE.read_bytes())["quantization_config"]["config_groups"]["group_1"]
PATH = "quantization_config.config_groups.group_1.input_activations"


def base() -> dict[str, Any]:
    return dict(json.loads(CONFIG_BASE.read_bytes()))


def edited(*path: str, value: object) -> dict[str, Any]:
    """The base's config with something else at a path; `...` takes the key away."""
    config = base()
    *parents, last = path
    target = config
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return config


def group(*path: str, value: object) -> dict[str, Any]:
    return edited("quantization_config", "config_groups", "group_1", *path, value=value)


def test_only_the_experts_activations_and_the_provenance_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG_BASE.read_text()
    assert text.count(NULL) == 1
    assert dsv4("convert", str(CONFIG_BASE), str(tmp_path)) == 0
    written = (tmp_path / "config.json").read_text()
    assert written == text.replace(NULL, FP8).removesuffix("  }\n}\n") + PROVENANCE
    fp8 = json.dumps(FP8_PER_TOKEN)
    assert capsys.readouterr().out == (
        f"convert: wrote {tmp_path}/config.json (w4a8)\n"
        f"  {PATH}: null -> {fp8}\n"
        f"  _w4a8_conversion: added {json.dumps(json.loads(written)['_w4a8_conversion'])}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_json_says_what_was_written_and_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dsv4("convert", "--json", str(CONFIG_BASE), str(tmp_path)) == 0
    provenance = json.loads((tmp_path / "config.json").read_bytes())["_w4a8_conversion"]
    out, err = capsys.readouterr()
    assert (json.loads(out), out.count("\n"), err) == (
        {
            "wrote": f"{tmp_path}/config.json",
            "kind": "w4a8",
            "changes": [
                f"{PATH}: null -> {json.dumps(FP8_PER_TOKEN)}",
                f"_w4a8_conversion: added {json.dumps(provenance)}",
            ],
        },
        1,
        "",
    )


@pytest.mark.parametrize("other", ["config.json", "link.json", "."])
def test_a_folder_means_its_config_which_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG_BASE.read_bytes())
    (tmp_path / "link.json").symlink_to("config.json")
    target = tmp_path / ("config.json" if other == "." else other)
    assert dsv4("convert", str(tmp_path), str(tmp_path / other)) == 2
    assert capsys.readouterr() == ("", f"error: IN and OUT are the same file, {target}\n  next: give another OUT\n")
    assert (tmp_path / "config.json").read_bytes() == CONFIG_BASE.read_bytes()
    assert (tmp_path / "link.json").is_symlink()


def test_a_device_is_neither_read_to_its_end_nor_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert dsv4("convert", "/dev/zero", str(tmp_path / "out.json")) == 3
    error = f"error: /dev/zero has more than 1048576 bytes; no config.json has\n  next: {GIVE}\n"
    assert capsys.readouterr() == ("", error)
    assert dsv4("convert", str(CONFIG_BASE), str(pipe)) == 2
    assert capsys.readouterr() == ("", f"error: {pipe} is no regular file\n  next: give another OUT\n")
    assert [(path, path.is_fifo()) for path in tmp_path.iterdir()] == [(pipe, True)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        # Newer Pythons add which value it is.
        ("1e999", r"Out of range float values are not JSON compliant(: inf)?"),
        (r'"\ud800"', r"'utf-8' codec can't encode character '\\ud800' in position \d+: surrogates not allowed"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, reason: str
) -> None:
    source = tmp_path / "in.json"
    text = '{"dsv4_demo": true, "model_type": "qwen2", "max_position_embeddings": 256, "x": VALUE}'
    source.write_text(text.replace("VALUE", value))
    assert dsv4("convert", str(source), str(tmp_path / "out.json")) == 3
    out, err = capsys.readouterr()
    start = re.escape(f"error: {source}: the config cannot be written as JSON: ")
    assert out == ""
    assert re.fullmatch(start + reason + re.escape(f"\n  next: {GIVE}\n"), err)
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_text_stays_as_it_is() -> None:
    assert convert.text_of({"ä": "深"}) == '{\n  "ä": "深"\n}\n'.encode()


def test_the_group_is_found_by_what_it_is_not_by_its_name() -> None:
    config = base()
    groups = config["quantization_config"]["config_groups"]
    config["quantization_config"]["config_groups"] = {"experts": groups["group_1"], "group_1": groups["group_0"]}
    _, converted = convert.convert(convert.text_of(config), "config.json")
    expected = copy.deepcopy(config)
    expected["quantization_config"]["config_groups"]["experts"]["input_activations"] = FP8_PER_TOKEN
    assert {key: value for key, value in json.loads(converted).items() if key != "_w4a8_conversion"} == expected


def test_the_demo_gets_a_longer_context() -> None:
    config = {"model_type": "qwen2", "dsv4_demo": True, "max_position_embeddings": 256, "rope_theta": 1e4}
    kind, converted = convert.convert(convert.text_of(config), "config.json")
    assert kind is CheckpointKind.DEMO
    provenance = {"tool": "dsv4-stack", "changed": "max_position_embeddings", "from": 256, "to": 512}
    assert converted == convert.text_of(config | {"max_position_embeddings": 512, "_demo_conversion": provenance})


@pytest.mark.parametrize(
    ("config", "message", "step"),
    [
        (edited("quantization_config", value=...), NO_GROUP, STEP),
        (edited("quantization_config", value=[]), NO_GROUP, STEP),
        (edited("quantization_config", "config_groups", value=None), NO_GROUP, STEP),
        (group("weights", "num_bits", value=8), NO_GROUP, STEP),
        (group("weights", "type", value="float"), NO_GROUP, STEP),
        (group("weights", "strategy", value="channel"), NO_GROUP, STEP),
        (group("targets", value=["Linear"]), NO_GROUP, STEP),
        (group("targets", value=["re:.*shared_experts.*"]), NO_GROUP, STEP),
        (group("targets", value="experts"), NO_GROUP, STEP),
        (
            edited(
                "quantization_config",
                "config_groups",
                "more",
                value=base()["quantization_config"]["config_groups"]["group_1"],
            ),
            "the config has several int4 experts groups: group_1, more",
            STEP,
        ),
        (
            group("input_activations", value=FP8_PER_TOKEN),
            f"the config is converted already: {PATH} is FP8 per token",
            STEP,
        ),
        (group("input_activations", value={"num_bits": 4}), f'{PATH} should be null, not {{"num_bits": 4}}', STEP),
        (edited("_w4a8_conversion", value={}), f"{CONVERTED}: it has _w4a8_conversion", STEP),
        (
            {"model_type": "qwen2", "dsv4_demo": True, "max_position_embeddings": 512},
            "max_position_embeddings should be 256, not 512",
            "give the config.json of demo/tiny-counter",
        ),
        ({"model_type": "qwen2", "dsv4_demo": 1}, NO_GROUP, STEP),
    ],
)
def test_a_config_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any], message: str, step: str
) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_bytes(convert.text_of(config))
    assert dsv4("convert", str(source), str(target)) == 3
    assert capsys.readouterr() == ("", f"error: {source}: {message}\n  next: {step}\n")
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "should hold a JSON object"),
        (b'{"a": NaN}', "is not JSON: NaN is no JSON number"),
        (b'{"a": 1, "b": {}, "a": 2}', "is not JSON: the key 'a' stands twice in one object"),
        (b"[" * 100_000, "is not JSON: nested too deeply"),
        (b" " * (1 << 20) + b"{}", "has more than 1048576 bytes; no config.json has"),
    ],
)
def test_what_is_no_config_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    source = tmp_path / "in.json"
    source.write_bytes(content)
    assert dsv4("convert", str(source), str(tmp_path / "out.json")) == 3
    colon = "" if message.startswith(("is ", "should ", "has ")) else ":"
    assert capsys.readouterr() == ("", f"error: {source}{colon} {message}\n  next: {GIVE}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_missing_files_and_folders_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dsv4("convert", str(tmp_path), str(tmp_path / "out.json")) == 4
    assert capsys.readouterr().err == f"error: there is no {tmp_path}/config.json\n  next: {GIVE}\n"
    assert dsv4("convert", str(CONFIG_BASE), str(tmp_path / "no" / "out.json")) == 4
    assert capsys.readouterr().err == f"error: there is no folder {tmp_path}/no\n  next: run: mkdir -p {tmp_path}/no\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5))
def test_what_we_write_is_read_back_with_its_key_order(config: dict[str, Any]) -> None:
    assert list(convert.parse(convert.text_of(config), "x").items()) == list(config.items())


@given(st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda key: key not in base()), JSON, max_size=4))
def test_unknown_keys_stay_where_they_are(extra: dict[str, Any]) -> None:
    config = extra | base()
    _, converted = convert.convert(convert.text_of(config), "x")
    assert list(json.loads(converted)) == [*config, "_w4a8_conversion"]
    assert {key: json.loads(converted)[key] for key in extra} == extra


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_config_or_a_config_error(content: bytes) -> None:
    try:
        config = convert.parse(content, "x")
        conversion_of(config)
    except ConfigError as error:
        assert error.next_step  # noqa: PT017 - that nothing else is raised is the test
