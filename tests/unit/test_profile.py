"""Profiles as shipped: complete, commented key by key; and every way in which one can be wrong."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from dsv4_stack import assets, profile
from dsv4_stack.errors import ConfigError

SHIPPED = profile.names()
KEY = "would stand in files, and lock out the watch; for keys of users: dsv4 up --edge"


def test_the_shipped_profiles() -> None:
    assert SHIPPED == ["w4a8-tp2", "demo", "w4a16-tp2", "w4a8-tp2-baremetal", "w4a8-tp4"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_key_has_its_reason_above_it(name: str) -> None:
    lines = profile.path_of(name).read_text(encoding="utf-8").splitlines()
    keys = [index for index, line in enumerate(lines) if line and line[0].isalpha()]
    bare = [lines[index] for index in keys if not lines[index - 1].startswith("#")]
    assert bare == []


def test_the_default_profile_shows_every_key_that_there_is() -> None:
    values = tomllib.loads(profile.path_of(profile.DEFAULT).read_text(encoding="utf-8"))
    derived = {"name", "files"}
    assert values.keys() == {field.name for field in fields(profile.Profile)} - derived
    for table, kind in (
        ("machine", profile.Machine),
        ("weights", profile.Weights),
        ("serve", profile.Serve),
        ("health", profile.Health),
        ("probe", profile.Probe),
    ):
        assert values[table].keys() == {field.name for field in fields(kind)}


def test_a_profile_says_only_what_differs_from_the_one_it_extends() -> None:
    base, tp4 = profile.load("w4a8-tp2"), profile.load("w4a8-tp4")
    assert tp4.machine.gpus == 4
    assert tp4.serve.flags == base.serve.flags | {"tensor-parallel-size": 4}
    assert tp4.serve.env == base.serve.env
    assert [path.name for path in tp4.files] == ["w4a8-tp2.toml", "w4a8-tp4.toml"]


def test_bare_metal_takes_back_what_the_cvm_needs() -> None:
    bare = profile.load("w4a8-tp2-baremetal").serve
    assert bare.flags["disable-custom-all-reduce"] is False
    assert bare.flags["compilation-config"] == {}
    assert bare.env == {"VLLM_ALLREDUCE_USE_SYMM_MEM": "1", "TILELANG_CLEANUP_TEMP_FILES": "1"}


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_profile_of_ones_own_by_path(tmp_path: Path) -> None:
    mine = profile.load(write(tmp_path, 'extends = "w4a8-tp2"\n[serve]\nport = 9000\n'))
    assert (mine.name, mine.serve.port, mine.checkpoint) == ("mine", 9000, "w4a8")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'extends = "w4a8-tp2"\ncolour = "red"\n[machine]\ngpus = "two"\nshm_size = "lots"\n'
        '[weights]\ndirectory = "here"\n[serve]\nport = 0\n[serve.env]\nX = 1\n',
    )
    with pytest.raises(ConfigError) as caught:
        profile.load(path)
    # `tables.reject` names the file that was asked for.
    assert str(caught.value) == (
        f"{path} is invalid:\n"
        "  colour: unknown key\n"
        "  machine.gpus: should be a whole number\n"
        "  machine.shm_size: should be like \"16g\", not 'lots'\n"
        "  serve.env.X: should be a string, and its name a variable's\n"
        "  serve.port: should be a whole number of at least 1 and at most 65535\n"
        "  weights.directory: should be an absolute path, not 'here'\n"
        f"  next: mend {path}"
    )


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        profile.load("w4a8-tp3")
    assert str(caught.value) == (
        "there is no profile 'w4a8-tp3'\n"
        "  next: choose one of: w4a8-tp2, demo, w4a16-tp2, w4a8-tp2-baremetal, w4a8-tp4, or name a .toml file"
    )


def test_a_profile_that_extends_itself(tmp_path: Path) -> None:
    path = write(tmp_path, f'extends = "{tmp_path}/mine.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        profile.load(path)


def test_profiles_are_named_like_their_files() -> None:
    assert {path.stem for path in assets.PROFILES.glob("*.toml")} == set(SHIPPED)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[serve]\nport = 99999\n", "serve.port: should be a whole number of at least 1 and at most 65535"),
        ('[serve]\nport = "a"\n', "serve.port: should be a whole number"),
        ("[serve]\nport = true\n", "serve.port: should be a whole number of at least 1 and at most 65535"),
        ('[probe]\nexpect = "("\n', "probe.expect: should be a regular expression"),
        ("[weights]\nstall_limit_s = 0\n", "weights.stall_limit_s: should be a whole number of at least 1"),
        ('[weights]\nallow = "*.py"\n', "weights.allow: should be a list of strings"),
        ("[weights]\nallow = [1]\n", "weights.allow: should be a list of strings"),
        (
            '[weights]\nallow = ["*.py", "*"]\n',
            "weights.allow: '*' should be a file's name, or end in a suffix, as *.py does",
        ),
        (
            '[weights]\nallow = ["../x.py"]\n',
            "weights.allow: '../x.py' should be a relative path; nothing hidden is ever taken",
        ),
        ('[serve.flags]\napi-key = "x"\n', f"serve.flags.api-key: {KEY}"),
        ('[serve.flags]\napi_key = "x"\n', f"serve.flags.api_key: {KEY}"),
        ('[serve.env]\nVLLM_API_KEY = "x"\n', f"serve.env.VLLM_API_KEY: {KEY}"),
        ('[serve.env]\n"BAD NAME" = "1"\n', "serve.env.BAD NAME: should be a string, and its name a variable's"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile.load(write(tmp_path, f'extends = "w4a8-tp2"\n{text}'))
    found = caught.value.message.splitlines()[1:]
    assert len(found) == 1
    assert found[0].startswith(f"  {problem}")


def test_what_a_profile_may_allow(tmp_path: Path) -> None:
    mine = profile.load(write(tmp_path, 'extends = "w4a8-tp2"\n[weights]\nallow = ["*.py", "README.md"]\n'))
    assert mine.weights.allow == ("*.py", "README.md")
    assert profile.load("w4a8-tp2").weights.allow == ()
    assert {name: known.weights.stall_limit_s for name, known in profile.shipped().items()} == {
        "w4a8-tp2": 600,
        "demo": 60,
        "w4a16-tp2": 600,
        "w4a8-tp2-baremetal": 600,
        "w4a8-tp4": 600,
    }


def test_a_name_that_compose_would_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "My.Prof.toml"
    path.write_text('extends = "w4a8-tp2"\n')
    with pytest.raises(ConfigError, match="the file's name: should be lower-case letters"):
        profile.load(str(path))


def test_a_profile_may_extend_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "w4a8-tp2"\n[serve]\nport = 9001\n')
    assert profile.load(write(tmp_path, 'extends = "base.toml"\n')).serve.port == 9001
