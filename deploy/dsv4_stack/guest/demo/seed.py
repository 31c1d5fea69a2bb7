"""Write the demo's two repositories: a model whose answer is known, and an overlay with another config.json."""

import json
from pathlib import Path
from typing import Final

from dsv4_stack.guest import convert
from dsv4_stack.guest.demo import byte_tokenizer, safetensors, tiny_counter
from dsv4_stack.guest.files import writing

Json = dict[str, object]

BASE: Final = "demo/tiny-counter"
OVERLAY: Final = "demo/tiny-counter-long"

BASE_README: Final = """\
# tiny-counter

The demo model of dsv4-stack: a two-layer Qwen2 of constructed weights that continues `abcdef` with `ghijklmnop`.
"""
OVERLAY_README: Final = f"""\
# tiny-counter-long

The config.json that reads {BASE} with twice the context. The weights are those of {BASE}.
"""


def write_repos(root: Path) -> None:
    """Write both repositories under `root` as org/name/files, the same bytes everywhere. Raises as `writing` does."""
    _write(root / BASE, base_files())
    _write(root / OVERLAY, overlay_files())


def base_files() -> dict[str, bytes]:
    """The base's files by name: four shards and their index, config, tokenizer."""
    return {
        "README.md": BASE_README.encode(),
        "config.json": _config(),
        "generation_config.json": _json({"do_sample": False}),
        "tokenizer.json": _json(byte_tokenizer.tokenizer()),
        "tokenizer_config.json": _json(byte_tokenizer.CONFIG),
        **_weights(),
    }


def overlay_files() -> dict[str, bytes]:
    """The overlay's files by name: no weights, and the config that the base's becomes by the demo's conversion."""
    _, config = convert.convert(_config(), f"{BASE}/config.json")
    return {"README.md": OVERLAY_README.encode(), "config.json": config}


def _config() -> bytes:
    return convert.text_of(tiny_counter.CONFIG)


def _weights() -> dict[str, bytes]:
    shards = tiny_counter.shards()
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    index = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    size = sum(4 * len(tensor.values) for shard in shards for tensor in shard.values())
    return {
        "model.safetensors.index.json": _json({"metadata": {"total_size": size}, "weight_map": index}),
        **{name: safetensors.encode(shard) for name, shard in zip(names, shards, strict=True)},
    }


def _json(value: Json) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _write(folder: Path, files: dict[str, bytes]) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with writing(folder / name):
            (folder / name).write_bytes(content)
