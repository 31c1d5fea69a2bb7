"""pins.toml as shipped, and every way in which one can be wrong."""

import re
from pathlib import Path

import pytest
from helpers.pinned import IMAGE, IMAGES

from dsv4_stack import assets, pins
from dsv4_stack.errors import ConfigError, NotFoundError

GOOD = f"""
schema = 1
default_engine = "one"
[images]
{IMAGES}
[engines.one]
about = "the one"
image = "serve"
version = "1"
releases = ["1.2.3"]
base = "{IMAGE}"
[releases."1.2.3"]
torch = "2"
transformers = ">=5"
runner = "V1"
wheel = {{ url = "https://example.org/a.whl", sha256 = "" }}
[hazards.fire]
since = "1.0.0"
what = "it burns"
mend = "water"
source = "https://example.org/1"
[checkpoints.c]
config = "base"
base = {{ repo = "org/name", revision = "" }}
"""


def load(tmp_path: Path, text: str) -> pins.Pins:
    path = tmp_path / "pins.toml"
    path.write_text(text, encoding="utf-8")
    return pins.load(path)


def test_shipped_pins_hold_the_known_values() -> None:
    shipped = pins.load(assets.PINS)
    nightly = shipped.engines["nightly"]
    assert shipped.default_engine == "nightly"
    assert (nightly.version, nightly.commit) == (
        "0.23.1rc1.dev901+g2f3f441f8",
        "2f3f441f84bd5b35ec8aa9fcfffb540f107da8a7",
    )
    assert nightly.wheel is not None
    assert nightly.commit in nightly.wheel.url
    assert shipped.checkpoints["w4a8"].base.reference == (
        "canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP@0bbee82146562d9b7e4687483d348c760e61ef3b"
    )
    assert shipped.checkpoints["w4a8"].overlay is not None
    assert shipped.checkpoints["w4a8"].overlay.reference == "endnai/DeepSeek-V4-Flash-W4A8-FP8@main"


def test_every_pin_names_its_source() -> None:
    blocks = assets.PINS.read_text(encoding="utf-8").split("\n\n")
    pinned = [block for block in blocks if re.search(r"(?m)^(base|init) = ", block) and "seeded" not in block]
    assert len(pinned) == 10
    assert [block for block in pinned if "https://" not in "".join(re.findall(r"#.*", block))] == []


def test_every_release_can_be_fetched_in_parts_and_proved() -> None:
    facts = pins.load(assets.PINS).releases.values()
    assert [(len(entry.wheel.sha256), len(entry.wheel.record)) for entry in facts] == [(64, 64)] * 11
    assert {entry.wheel.url.split("/")[2] for entry in facts} == {"files.pythonhosted.org"}


def test_good_pins_load(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.engines["one"].wheel is None
    assert (str(loaded.hazards["fire"].span), loaded.hazards["fire"].env) == ("1.0.0 and later", {})
    without = load(tmp_path, GOOD.partition("[hazards.fire]")[0] + "[checkpoints" + GOOD.partition("[checkpoints")[2])
    assert without.hazards == {}


def test_a_base_by_tag_alone_is_unlocked(tmp_path: Path) -> None:
    by_tag = load(tmp_path, GOOD.replace(f'base = "{IMAGE}"', 'base = "name:tag"'))
    assert (by_tag.engines["one"].base_locked, load(tmp_path, GOOD).engines["one"].base_locked) == (False, True)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace('default_engine = "one"', 'default_engine = "two"')
        .replace(f'init = "{IMAGE}"', 'init = "python:3.12"')
        .replace('releases = ["1.2.3"]', "releases = [1]\nflavour = 'x'")
        .replace('config = "base"', 'config = "overlay"')
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == (
        f"{tmp_path}/pins.toml is invalid:\n"
        '  checkpoints.c.overlay: belongs to config = "overlay", and only to it\n'
        "  default_engine: should be one of one\n"
        "  engines.one.flavour: unknown key\n"
        "  engines.one.releases: should be a list of strings\n"
        "  engines.one.releases: should be some of 1.2.3\n"
        "  images.init: should be an image as name:tag@sha256:digest, not 'python:3.12'\n"
        f"  next: mend {tmp_path}/pins.toml"
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("schema = 1", "schema = 2", "schema: should be 1"),
        ("schema = 1", "schema = true", "schema: should be a whole number of at least 0"),
        ('image = "serve"', 'image = "nginx"', "engines.one.image: should be serve or serve-cpu, not 'nginx'"),
        ('version = "1"', "version = 1", "engines.one.version: should be a string"),
        ('version = "1"', "", "engines.one.version: is missing; it should be a string"),
        ('repo = "org/name"', 'repo = "name"', "checkpoints.c.base.repo: should be org/name, not 'name'"),
        ('runner = "V1"', 'runner = "V3"', "releases.1.2.3.runner: should be V1 or V2, not 'V3'"),
        ('["1.2.3"]', '["1.2.4"]', "engines.one.releases: should be some of 1.2.3"),
        ('since = "1.0.0"', 'since = "1"', "hazards.fire.since: '1' is no vLLM release"),
        ('since = "1.0.0"', 'since = "1.0.0"\nrefuses = "all"', "hazards.fire.refuses: should be mtp, not 'all'"),
        ('config = "base"', 'config = "best"', "checkpoints.c.config: should be overlay, convert or base, not 'best'"),
    ],
)
def test_each_wrong_value_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert f"  {problem}" in caught.value.message.splitlines()
    assert caught.value.exit_code == 3


def test_a_missing_file_and_broken_toml_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        pins.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path, "schema = ")


def test_an_unknown_engine_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        pins.engine_named(load(tmp_path, GOOD), "two")
    assert str(caught.value) == "there is no engine 'two'\n  next: choose one of: one"
