"""A Hub on loopback with a four-shard base and its config-only overlay, and the verbs of `dsv4` run in this process."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from dsv4_stack.guest import convert
from dsv4_stack.guest.__main__ import VERBS
from dsv4_stack.guest.cli import Verb, dispatch
from dsv4_stack.guest.demo.repo import revision_of
from dsv4_stack.guest.demo.server import DemoHub

CONFIG_BASE = Path(__file__).parents[1] / "data" / "config_base.json"
BASE = "org/base"
OVERLAY = "org/overlay"
SHARDS = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]
WANTED = [
    "LICENSE",
    "chat_template.jinja",
    "config.json",
    "encoding/vocabulary.json",
    "generation_config.json",
    *SHARDS,
    "model.safetensors.index.json",
    "tokenizer.json",
]


@dataclass(frozen=True, kw_only=True)
class World:
    """`root` is what the Hub serves, `dest` where tests materialize to."""

    server: DemoHub
    root: Path
    dest: Path

    @property
    def url(self) -> str:
        return self.server.url

    def revision(self, repo: str) -> str:
        return revision_of(self.server.visible(repo))

    def sha256(self, repo: str, path: str) -> str:
        return hashlib.sha256((self.root / repo / path).read_bytes()).hexdigest()

    def forget_requests(self) -> None:
        self.server.requests.clear()

    def materialize(self, *arguments: str) -> int:
        """The exit code of `dsv4 materialize` to `dest`."""
        return dsv4("materialize", "--dest", str(self.dest), "--stall-limit", "20", *arguments)


def dsv4(*arguments: str) -> int:
    """The exit code of a verb of the guest's, or of `convert`, which the host mounts."""
    verbs = {**VERBS, "convert": Verb("convert", "convert")}
    return dispatch("dsv4", "tests", "dsv4_stack.guest", verbs, arguments)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def write_base(folder: Path) -> None:
    """Everything that a repository of weights has, wanted and unwanted, with shards of a few kilobytes."""
    index = {"metadata": {}, "weight_map": {f"layer.{number}": name for number, name in enumerate(SHARDS)}}
    write(folder, {name: shard(number) for number, name in enumerate(SHARDS)})
    write(
        folder,
        {
            ".gitattributes": b"*.safetensors filter=lfs\n",
            "LICENSE": b"MIT\n",
            "README.md": b"# base\n",
            "chat_template.jinja": b"{{ messages }}\n",
            "config.json": CONFIG_BASE.read_bytes(),
            "encoding/vocabulary.json": b"{}\n",
            "generation_config.json": b'{"do_sample": true}\n',
            "model.safetensors.index.json": json.dumps(index).encode(),
            "modeling_deepseek.py": b"raise SystemExit\n",
            "pytorch_model.bin": b"pickle",
            "tokenizer.json": b"{}\n",
        },
    )


def write_overlay(folder: Path) -> None:
    """The converted config in another key order and spacing, with a provenance of its own, and no weights."""
    _, converted = convert.convert(CONFIG_BASE.read_bytes(), "config.json")
    config = json.loads(converted) | {"_w4a8_conversion": "by hand"}
    write(
        folder,
        {
            "README.md": b"# overlay\n",
            "config.json": json.dumps(config, indent=4, sort_keys=True).encode(),
            "tokenizer.json": b'{"of": "overlay"}\n',
        },
    )


def shard(number: int) -> bytes:
    """A valid safetensors file of one tensor whose bytes nobody could guess."""
    content = hashlib.shake_256(f"shard {number}".encode()).digest(4096 + 16 * number)
    header = {f"layer.{number}": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but our own records."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != ".dsv4"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}
