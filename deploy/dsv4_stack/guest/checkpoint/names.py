"""File names that others chose: which are safe to write, and which belong to a checkpoint."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from dsv4_stack.guest.files import is_of_file_system

_PATH_BYTES: Final = 1024
_NAME_BYTES: Final = 255
_DEPTH: Final = 32
_WANTED: Final = {".safetensors", ".json", ".model", ".txt", ".jinja"}
_LICENCE: Final = {"", ".md", ".txt", ".rst"}
_STATE: Final = ".dsv4"

# A volume may be NTFS or SMB, where these are devices with any extension:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
_RESERVED: Final = re.compile(r'[<>:"|?*]')
_PATTERN: Final = re.compile(r"[\w.*?/\[\]!-]+", re.ASCII)
_NAMED: Final = re.compile(r"[^*?\[\]]+|.*\.\w+", re.ASCII)


def problem_of(path: str) -> str:
    """Why this relative path with slashes cannot be written as it stands on every disk, or nothing."""
    if not path.isprintable() or "\\" in path:
        return "unprintable character or backslash"
    if path.startswith("/"):
        return "absolute"
    parts = path.split("/")
    if {"", ".", ".."} & set(parts):
        return "empty, . or .. part"
    if len(path.encode()) > _PATH_BYTES or len(parts) > _DEPTH:
        return f"longer than {_PATH_BYTES} bytes or deeper than {_DEPTH} parts"
    if _folded(parts[0]) == _STATE:
        return f"in {_STATE}, where our own records are"
    return next((problem for part in parts if (problem := _problem_of_part(part))), "")


def _problem_of_part(part: str) -> str:
    if len(part.encode()) > _NAME_BYTES:
        return f"part longer than {_NAME_BYTES} bytes"
    if part[-1] in ". ":
        return "part that ends with a dot or a space"
    if _RESERVED.search(part):
        return 'one of < > : " | ? *'
    return "a device's name" if _DEVICE.fullmatch(part) else ""


def problems_of(paths: Iterable[str]) -> list[str]:
    """Every problem among these names in words, also two that a case-insensitive disk takes for one."""
    problems = []
    files: dict[str, str] = {}
    folders: dict[str, tuple[str, str]] = {}
    for path in paths:
        problem = problem_of(path) or _collision(path, files, folders)
        if problem:
            problems.append(f"{path!r}: {problem}")
            continue
        files[_folded(path)] = path
        for folder in _folders_of(path):
            folders.setdefault(_folded(folder), (folder, path))
    return problems


def _collision(path: str, files: dict[str, str], folders: dict[str, tuple[str, str]]) -> str:
    """What stands in the way of this path among those before it."""
    key = _folded(path)
    if twin := files.get(key):
        return "listed twice" if twin == path else f"differs from {twin!r} in case only"
    if key in folders:
        return f"is a folder in {folders[key][1]!r}"
    for folder in _folders_of(path):
        key = _folded(folder)
        if key in files:
            return f"lies in {files[key]!r}, which is a file"
        spelling, twin = folders.get(key, (folder, ""))
        if spelling != folder:
            return f"its folder differs from that of {twin!r} in case only"
    return ""


def _folders_of(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: length + 1]) for length in range(len(parts)))


def _folded(path: str) -> str:
    """The same for all spellings that some disk takes for one: NTFS compares upper case, others fold or normalize."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).upper().casefold())


def is_wanted(path: str, allow: Sequence[str] = ()) -> bool:
    """Weights, configs, tokenizers and licences; no code, nothing that runs when it is loaded, nothing hidden.

    `allow` are patterns of whole paths, `*` standing for slashes too, that are taken besides; hidden files never are.
    """
    name = PurePosixPath(path)
    if any(part.startswith(".") for part in name.parts) or is_of_file_system(path):
        return False
    if any(fnmatchcase(path, pattern) for pattern in allow):
        return True
    if name.name.upper().startswith("README"):
        return False
    suffix = name.suffix.lower()
    return suffix in _WANTED or (name.name.startswith("LICENSE") and suffix in _LICENCE)


def problem_of_pattern(pattern: str) -> str:
    """Why this pattern is none to allow more files with, or nothing. It has to say what it takes: `*.py`, not `*`."""
    if not _PATTERN.fullmatch(pattern) or pattern.startswith("-"):
        return "should be made of letters, digits and . _ - / * ? [ ] !"
    parts = pattern.split("/")
    if any(part in ("", "**") or part.startswith(".") for part in parts):
        return "should be a relative path; nothing hidden is ever taken"
    if not _NAMED.fullmatch(parts[-1]):
        return "should be a file's name, or end in a suffix, as *.py does"
    return ""
