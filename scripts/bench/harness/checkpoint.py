"""A checkpoint of random bytes, valid as safetensors and as a repository, and whether a folder holds it bit for bit."""

import hashlib
import json
import os
import random
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
_BLOCK: Final = 1 << 20
_EXPERT: Final = tuple(f"w{of}.weight_{part}" for of in (1, 2, 3) for part in ("packed", "scale", "shape"))
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


def write(
    root: Path, repo: str, *, shards: int, shard_bytes: int, tensors: int | None = None, seed: int = 0
) -> Checkpoint:
    """Write `shards` files of `shard_bytes` random bytes each, their index and what else a model has.

    `tensors` is how many the shards have together, one each where it is not said.
    """
    folder = root / repo
    folder.mkdir(parents=True)
    weight_map = {}
    for number in range(shards):
        name, each = shard_name(number + 1, shards), tensor_names(number, (tensors or shards) // shards)
        write_shard(folder / name, each, shard_bytes, seed=seed + number)
        weight_map |= dict.fromkeys(each, name)
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


def tensor_names(number: int, count: int) -> list[str]:
    """Of so many tensors of one shard: most are experts, as in a real one."""
    experts = (f"{place // len(_EXPERT)}.{_EXPERT[place % len(_EXPERT)]}" for place in range(count - 1))
    return [tensor_name(number), *(f"model.layers.{number}.ffn.experts.{expert}" for expert in experts)]


def write_index(folder: Path, weight_map: Mapping[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict(weight_map)}, indent=2) + "\n")


def write_shard(path: Path, tensors: Sequence[str], size: int, *, seed: int) -> None:
    """`size` random bytes, shared out among the tensors: https://github.com/huggingface/safetensors#format"""
    ends = [size * (place + 1) // len(tensors) for place in range(len(tensors))]
    entries = {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, begin, end in zip(tensors, [0, *ends], ends, strict=False)
    }
    header = json.dumps(entries).encode()
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
    """The bytes of a shard's tensors."""
    with shard.open("rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    return shard.stat().st_size - 8 - int(header)
