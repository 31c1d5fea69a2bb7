"""A checkpoint of random bytes, valid as safetensors and as a repository, and whether a folder holds it bit for bit."""

import hashlib
import json
import os
import random
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
_BLOCK: Final = 1 << 20
_SMALL_FILES: Final = {
    CONFIG: b'{"architectures": ["Bench"], "model_type": "bench"}\n',
    "generation_config.json": b'{"do_sample": false}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`repo` lies in `folder`; `hashes` are the files' sha256 by path, `size` is all their bytes."""

    repo: str
    folder: Path
    hashes: Mapping[str, str]
    size: int

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(path for path in self.hashes if path.endswith(".safetensors"))


def write(root: Path, repo: str, *, shards: int, shard_bytes: int, seed: int = 0) -> Checkpoint:
    """Write `shards` files of one tensor of `shard_bytes` random bytes each, their index and what else a model has."""
    folder = root / repo
    folder.mkdir(parents=True)
    names = [shard_name(number, shards) for number in range(1, shards + 1)]
    for number, name in enumerate(names):
        write_shard(folder / name, tensor_name(number), shard_bytes, seed=seed + number)
    weight_map = {tensor_name(number): name for number, name in enumerate(names)}
    write_index(folder, weight_map)
    for name, content in _SMALL_FILES.items():
        (folder / name).write_bytes(content)
    return read(folder, repo)


def read(folder: Path, repo: str) -> Checkpoint:
    """The checkpoint that lies in a folder."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    hashes = {path.name: sha256(path) for path in paths}
    return Checkpoint(repo=repo, folder=folder, hashes=hashes, size=sum(path.stat().st_size for path in paths))


def shard_name(number: int, shards: int) -> str:
    return f"model-{number:05}-of-{shards:05}.safetensors"


def tensor_name(number: int) -> str:
    return f"model.layers.{number}.weight"


def write_index(folder: Path, weight_map: Mapping[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict(weight_map)}, indent=2) + "\n")


def write_shard(path: Path, tensor: str, size: int, *, seed: int) -> None:
    """One tensor of `size` random bytes: https://github.com/huggingface/safetensors#format"""
    header = json.dumps({tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    source = random.Random(seed)  # noqa: S311 - bytes that do not compress, not secrets
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, size, _BLOCK):
            file.write(source.randbytes(min(_BLOCK, size - start)))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problems(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """The checkpoint's files that `folder` has not, or has with other bytes."""

    def problem(path: str) -> str:
        if not (folder / path).is_file():
            return f"{path} is missing"
        return "" if sha256(folder / path) == checkpoint.hashes[path] else f"{path} has other bytes"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [found for found in pool.map(problem, checkpoint.hashes) if found]


def payload(shard: Path) -> int:
    """The bytes of a shard's tensor."""
    with shard.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    return shard.stat().st_size - 8 - int(header)
