"""`dsv4 convert`: the edit that turns a W4A16 config.json into the W4A8 one, or nothing where it does not fit."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, Dsv4Error, NotFoundError, UsageError
from dsv4_stack.guest.checkpoint.conversions import CheckpointKind, Config, Conversion, conversion_of
from dsv4_stack.guest.checkpoint.difference import difference
from dsv4_stack.guest.checkpoint.documents import json_object
from dsv4_stack.guest.files import write_atomically

MAX_BYTES: Final = 1 << 20
"""The real file has 7 kB; nothing of this size is a config.json."""

CONFIG_NAME: Final = "config.json"
_GIVE_A_CONFIG: Final = "give a checkpoint's config.json, or the folder that holds it"


def parse(content: bytes, name: str) -> Config:
    """A config.json's object, key order kept. `name` is for messages. Raises ConfigError."""
    return json_object(content, name, MAX_BYTES, _GIVE_A_CONFIG)


def text_of(config: Config) -> bytes:
    """Indented by two and with a newline at the end, as transformers does.

    Raises ConfigError for what UTF-8 JSON cannot hold: a number beyond a double's range, half of a surrogate pair.
    """
    try:
        return (json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
    except ValueError as error:
        raise ConfigError(f"the config cannot be written as JSON: {error}", _GIVE_A_CONFIG) from None


def convert(content: bytes, name: str) -> tuple[CheckpointKind, bytes]:
    """The converted config.json and what kind of checkpoint it belongs to. Raises ConfigError that names `name`."""
    conversion, converted = _converted(parse(content, name), name)
    with _naming(name):
        return conversion.kind, text_of(converted)


def compare_overlay(base: bytes, overlay: bytes, base_name: str, overlay_name: str) -> tuple[CheckpointKind, list[str]]:
    """How the overlay's config differs from our own conversion of the base's, but for provenance and formatting.

    Raises ConfigError where either is no config, or the base's cannot be converted.
    """
    conversion, ours = _converted(parse(base, base_name), base_name)
    theirs = parse(overlay, overlay_name)
    strip = conversion.provenance
    return conversion.kind, difference(_without(ours, strip), _without(theirs, strip))


def _converted(config: Config, name: str) -> tuple[Conversion, Config]:
    with _naming(name):
        conversion = conversion_of(config)
        return conversion, conversion.convert(config)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.message}", error.next_step) from None
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply", _GIVE_A_CONFIG) from None


def _without(config: Config, key: str) -> Config:
    return {name: value for name, value in config.items() if name != key}


def _config_path(path: Path) -> Path:
    return path / CONFIG_NAME if path.is_dir() else path


def _read(path: Path) -> bytes:
    """No more than shows that it is too large: a device has no end, and says that it has no bytes."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no {path}", _GIVE_A_CONFIG) from None
    except OSError as error:
        raise Dsv4Error(f"{path} cannot be read: {error.strerror}", _GIVE_A_CONFIG) from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="a W4A16 config.json, or the folder that holds it")
    parser.add_argument(
        "target", type=Path, metavar="OUT", help="the file to write, or the folder to write config.json to"
    )
    parser.add_argument("--json", action="store_true", help="print what was written and changed as one JSON object")


def run(args: argparse.Namespace) -> None:
    source, target = _config_path(args.source), _config_path(args.target)
    content = _read(source)
    kind, converted = convert(content, str(source))
    _refuse_target(source, target)
    changes = difference(parse(content, str(source)), parse(converted, str(target)))
    write_atomically(target, converted)
    if args.json:
        print(json.dumps({"wrote": str(target), "kind": kind, "changes": changes}))
    else:
        print(f"convert: wrote {target} ({kind})", *changes, sep="\n  ")


def _refuse_target(source: Path, target: Path) -> None:
    if not target.parent.is_dir():
        raise NotFoundError(f"there is no folder {target.parent}", f"run: mkdir -p {target.parent}")
    if not target.exists():
        return
    if target.samefile(source):
        raise UsageError(f"IN and OUT are the same file, {target}", "give another OUT")
    if not target.is_file():
        raise UsageError(f"{target} is no regular file", "give another OUT")
