"""Names that others chose: below their folder and apart from each other, on every kind of disk."""

import ntpath
import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.guest.checkpoint import names

LONG = "/".join(["x" * 249] * 4)
DEEP = "/".join(["d"] * 33)


@pytest.mark.parametrize(
    ("problem", "paths"),
    [
        ("absolute", ["/a", "/", "//a"]),
        ("empty, . or .. part", ["", "a//b", "a/", "a/./b", ".", "..", "../a", "a/..", "a/../../b"]),
        (
            "unprintable character or backslash",
            ["a\\b", "C:\\a", "a\nb", "a\0", "\x7f", "\ud800", "a\u202eb", "\udc80"],
        ),
        ("part longer than 255 bytes", ["x" * 256, "sub/" + "é" * 128]),
        ("longer than 1024 bytes or deeper than 32 parts", [f"{LONG}/{'x' * 26}", DEEP]),
        ("in .dsv4, where our own records are", [".dsv4/manifest.json", ".DSV4/x", ".dsv4", ".Dsv4/a/b"]),
        ("part that ends with a dot or a space", ["a.", "a /b", "...", ".. /a", "a/b.json "]),
        ('one of < > : " | ? *', ["a<", "a>b", "C:a", "a:b/c", 'a"', "a|b", "what?.txt", "*.json"]),
        (
            "a device's name",
            ["con", "CON", "aux.json", "sub/NUL/x", "prn.tar.gz", "Com1", "lpt9.txt", "COM¹", "CONIN$", "con .txt"],
        ),
    ],
)
def test_names_that_are_not_safe_everywhere(problem: str, paths: list[str]) -> None:
    assert {path: names.problem_of(path) for path in paths} == dict.fromkeys(paths, problem)


def test_names_that_are() -> None:
    paths = [
        *(
            "config.json",
            "sub/a b.txt",
            "a..b",
            ".gitattributes",
            "dsv4/x",
            "sub/.dsv4/x",
            "console.json",
            "com10",
            "common",
        ),
        *(
            "auxiliary.txt",
            "nul_.json",
            "深.json",
            "x" * 255,
            f"{LONG}/{'x' * 24}",
            DEEP[2:],
            "a-b_c+d@e,f=g(h)[i]{j}~",
        ),
    ]
    assert [path for path in paths if names.problem_of(path)] == []


@pytest.mark.parametrize(
    ("paths", "problems"),
    [
        (["a", "b/c", "d.e", "b/d", "b/e/f"], []),
        (["Config.json", "config.JSON"], ["'config.JSON': differs from 'Config.json' in case only"]),
        (["\u00e9", "e\u0301"], ["'e\u0301': differs from '\u00e9' in case only"]),
        (
            ["straße", "STRASSE", "\u017f", "s"],
            ["'STRASSE': differs from 'straße' in case only", "'s': differs from '\u017f' in case only"],
        ),
        (["a", "a"], ["'a': listed twice"]),
        (["a", "a/b"], ["'a/b': lies in 'a', which is a file"]),
        (["A/b/c", "a/B"], ["'a/B': is a folder in 'A/b/c'"]),
        (["a/b", "A"], ["'A': is a folder in 'a/b'"]),
        (["A/x", "a/y"], ["'a/y': its folder differs from that of 'A/x' in case only"]),
        (["p/A/x", "p/a/y"], ["'p/a/y': its folder differs from that of 'p/A/x' in case only"]),
        (["../x", "/x", "x"], ["'../x': empty, . or .. part", "'/x': absolute"]),
    ],
)
def test_names_that_do_not_go_together_are_all_named(paths: list[str], problems: list[str]) -> None:
    assert names.problems_of(paths) == problems


PATHS = st.text(st.sampled_from("aAbB./\\:é\u0301\u017fs\u0131i \x00"), min_size=1, max_size=8) | st.text(max_size=8)


@given(PATHS)
def test_a_name_without_a_problem_stays_below_its_folder(path: str) -> None:
    if not names.problem_of(path):
        assert posixpath.normpath(posixpath.join("/root/folder", path)) == f"/root/folder/{path}"
        below = "C:\\root\\folder\\" + path.replace("/", "\\")
        assert ntpath.normpath(ntpath.join("C:\\root\\folder", path)) == below


FOLDS = {
    "ntfs": str.upper,
    "apfs": lambda name: unicodedata.normalize("NFD", name).casefold(),
    "hfs+": lambda name: unicodedata.normalize("NFD", name).lower(),
    "ext4 casefold": lambda name: unicodedata.normalize("NFD", name.casefold()),
    "ext4": str,
}


@pytest.mark.parametrize("disk", FOLDS)
@given(st.lists(PATHS, max_size=6))
def test_what_is_accepted_is_written_apart_on_every_disk(disk: str, paths: list[str]) -> None:
    accepted: list[str] = []
    for path in paths:
        accepted += [] if names.problems_of([*accepted, path]) else [path]
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in accepted:
        parts = path.split("/")
        for length in range(1, len(parts)):
            folder = "/".join(parts[:length])
            assert folders.setdefault(FOLDS[disk](folder), folder) == folder
        assert FOLDS[disk](path) not in files
        files[FOLDS[disk](path)] = path
    assert files.keys() & folders.keys() == set()


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("model-00001-of-00004.safetensors", True),
        ("config.json", True),
        ("sub/vocab.txt", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("LICENSE", True),
        ("LICENSE.md", True),
        ("LICENSE-MODEL", True),
        ("LICENSE.py", False),
        ("LICENSE.PY", False),
        ("LICENSE.so", False),
        ("modeling.py", False),
        ("pytorch_model.bin", False),
        ("README.md", False),
        ("README.txt", False),
        ("readme.txt", False),
        (".gitattributes", False),
        (".cache/x.json", False),
        (".dsv4/manifest.json", False),
        ("sub/.hidden.json", False),
        ("figure.png", False),
    ],
)
def test_only_what_belongs_to_a_checkpoint_is_wanted(path: str, *, wanted: bool) -> None:
    assert names.is_wanted(path) is wanted


@pytest.mark.parametrize(
    ("path", "allow", "wanted"),
    [
        ("modeling.py", ["*.py"], True),
        ("sub/deep/modeling.py", ["*.py"], True),
        ("modeling.PY", ["*.py"], False),
        ("modeling.py", ["encoding/*.py"], False),
        ("encoding/x.py", ["encoding/*.py"], True),
        ("weights.pkl", ["*.py", "*.pkl"], True),
        ("README.md", ["README.md"], True),
        ("config.json", ["*.py"], True),
        (".hidden.py", ["*.py"], False),
        (".cache/x.py", ["*.py"], False),
        (".dsv4/x.py", ["*.py"], False),
    ],
)
def test_a_profile_may_allow_more(path: str, allow: list[str], *, wanted: bool) -> None:
    assert names.is_wanted(path, allow) is wanted


def test_patterns_say_what_they_take() -> None:
    fine = ["*.py", "encoding/*.py", "modeling.py", "README.md", "a*/b?.py", "[a-c]*.bin", "Makefile"]
    assert [pattern for pattern in fine if names.problem_of_pattern(pattern)] == []
    broad = ["*", "**", "*.*", "?*", "*.p*", "*.[a-z]", "x*", "sub/*", "[!.]", "*.p?"]
    assert {names.problem_of_pattern(pattern) for pattern in broad if pattern != "**"} == {
        "should be a file's name, or end in a suffix, as *.py does"
    }
    paths = ["**", "/etc/x.py", "../x.py", "a/../x.py", ".*.py", ".env", "a//b.py", "a/", "**/x.py", "./x.py"]
    assert {names.problem_of_pattern(pattern) for pattern in paths} == {
        "should be a relative path; nothing hidden is ever taken"
    }
    letters = ["", "-x.py", "--json", "a b.py", "$HOME.py", "${X}.py", "a\\b.py", "a\n.py", "é.py", "{a,b}.py"]
    assert {names.problem_of_pattern(pattern) for pattern in letters} == {
        "should be made of letters, digits and . _ - / * ? [ ] !"
    }
