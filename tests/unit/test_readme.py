"""Every command in the README names a verb, flags, profiles, files and variables that there are."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from dsv4_stack import __main__ as cli
from dsv4_stack import assets, matrix, pins, profile

SERVING = (assets.ROOT / "docs/serving.md").read_text(encoding="utf-8")
README = (assets.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [line.strip() for line in README.splitlines() if line.startswith("    ")]
INLINE = re.findall(r"`((?:\.venv/bin/)?dsv4 [a-z][^`]*)`", README)
COMMANDS = sorted({line for line in BLOCKS + INLINE if line.removeprefix(".venv/bin/").startswith("dsv4 ")})


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_a_verb_and_flags_that_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *words = shlex.split(command.removeprefix(".venv/bin/"))[1:]
    assert verb in cli.VERBS
    action = [word for word in words[:1] if verb == "patches"]
    with pytest.raises(SystemExit):
        cli.main([verb, *action, "--help"])
    known = capsys.readouterr().out
    flags = [word for word in words if word.startswith("--")]
    assert [flag for flag in flags if not re.search(rf"{flag}\b", known)] == []
    for flag, value in pairwise(words):
        if flag == "--profile" and not value.endswith(".toml") and value != "P":
            assert value in profile.names()
        if flag == "--engine":
            assert value in pins.load(assets.PINS).engines


def test_scripts_that_it_names_exist() -> None:
    named = set(re.findall(r"scripts/[\w-]+", README))
    assert [name for name in named if not (assets.ROOT / name).is_file()] == []


def test_the_table_of_engines_is_what_the_program_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert matrix.markdown(entries) in README


def test_tables_name_every_profile_engine_patch_and_verb() -> None:
    cells = set(re.findall(r"^\| `([^`]+)`", README, re.MULTILINE))
    pinned = pins.load(assets.PINS)
    patches = {path.stem for path in assets.PATCHES.glob("*.patch")}
    assert {*profile.names(), *pinned.engines, *patches} <= cells
    undocumented = [verb for verb in cli.VERBS if not re.search(rf"`?dsv4 {verb}\b|`{verb}`", README)]
    assert undocumented == []


def test_variables_that_it_names_are_read_somewhere() -> None:
    sources = [path for path in assets.PACKAGE.rglob("*") if path.suffix in {".py", ".toml"}]
    sources += [path for path in assets.COMPOSE.rglob("*") if path.is_file()]
    text = "".join(Path(path).read_text(encoding="utf-8") for path in sources)
    assert [name for name in set(re.findall(r"DSV4_\w+", README)) if name not in text] == []


def test_variables_that_are_read_are_in_it() -> None:
    sources = [*assets.PACKAGE.rglob("*.py"), *assets.COMPOSE.glob("*.j2")]
    read = {name for path in sources for name in re.findall(r"DSV4_[A-Z_]+", path.read_text(encoding="utf-8"))}
    inside_containers = {
        "DSV4_MODEL_DIR",
        "DSV4_EXTRA_CA_FILE",
        "DSV4_QUESTION",
        "DSV4_PATIENCE",
        "DSV4_GPUS",
        "DSV4_WARM",
    }
    inside_containers |= {"DSV4_RUN", "DSV4_CACHES", "DSV4_ENGINE_PORT", "DSV4_NOTICE_PORT"}
    inside_containers |= {"DSV4_DOOR", "DSV4_PASS", "DSV4_STACKS", "DSV4_PYTHONPATH", "DSV4_OWN_", "DSV4_OWN_EDGE"}
    assert sorted(read - inside_containers - set(re.findall(r"DSV4_[A-Z_]+", README + SERVING))) == []
