"""The demo's two repositories: their bytes, their files and their relation."""

import hashlib
import json
import struct
from pathlib import Path

import pytest

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.checkpoint.conversions import CheckpointKind
from dsv4_stack.guest.convert import compare_overlay
from dsv4_stack.guest.demo import seed

SHARDS = [f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def base() -> dict[str, bytes]:
    return seed.base_files()


@pytest.fixture(scope="module")
def overlay() -> dict[str, bytes]:
    return seed.overlay_files()


def digest(files: dict[str, bytes]) -> str:
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tensors(shard: bytes) -> dict[str, dict[str, object]]:
    (length,) = struct.unpack("<Q", shard[:8])
    header: dict[str, dict[str, object]] = json.loads(shard[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    spans = sorted(tensor["data_offsets"] for tensor in header.values())  # type: ignore[type-var]
    assert [span[0] for span in spans] == [0, *(span[1] for span in spans[:-1])]  # type: ignore[index]
    assert 8 + length + spans[-1][1] == len(shard)  # type: ignore[index]
    assert length % 8 == 0
    return header


def test_the_same_bytes_on_every_machine_and_python(base: dict[str, bytes], overlay: dict[str, bytes]) -> None:
    assert {"base": digest(base), "overlay": digest(overlay)} == {
        "base": "8517ac7ade1cdb5d6f62a23823b4921c24416ed7f278c265b07152ef8f021b0d",
        "overlay": "72ac1af7337450319d6ba3b130661876959c1c21be2e27feca7f7cecacb05321",
    }


def test_files(base: dict[str, bytes], overlay: dict[str, bytes]) -> None:
    assert sorted(base) == [
        "README.md",
        "config.json",
        "generation_config.json",
        *SHARDS,
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert sorted(overlay) == ["README.md", "config.json"]
    assert sum(map(len, (*base.values(), *overlay.values()))) < 2_000_000


def test_the_index_names_every_tensor_of_every_shard(base: dict[str, bytes]) -> None:
    index = json.loads(base["model.safetensors.index.json"])
    headers = {name: tensors(base[name]) for name in SHARDS}
    assert index == {
        "metadata": {"total_size": sum(_size(header) for header in headers.values())},
        "weight_map": {tensor: name for name, header in headers.items() for tensor in header},
    }


def _size(header: dict[str, dict[str, object]]) -> int:
    return max(tensor["data_offsets"][1] for tensor in header.values())  # type: ignore[index]


def test_no_shard_could_be_taken_for_another(base: dict[str, bytes]) -> None:
    assert len({len(base[name]) for name in SHARDS}) == 4


def test_the_overlay_is_exactly_the_demo_conversion(base: dict[str, bytes], overlay: dict[str, bytes]) -> None:
    compared = compare_overlay(base["config.json"], overlay["config.json"], "base", "overlay")
    assert compared == (CheckpointKind.DEMO, [])
    before, after = json.loads(base["config.json"]), json.loads(overlay["config.json"])
    del after["_demo_conversion"]
    assert after == before | {"max_position_embeddings": 512}


def test_both_are_written_and_again_over_themselves(tmp_path: Path) -> None:
    for _ in range(2):
        seed.write_repos(tmp_path)
    written = {str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {
        **{f"demo/tiny-counter/{name}": content for name, content in seed.base_files().items()},
        **{f"demo/tiny-counter-long/{name}": content for name, content in seed.overlay_files().items()},
    }


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(UsageError) as caught:
        seed.write_repos(tmp_path / "root")
    assert caught.value.message == f"{tmp_path}/root/demo/tiny-counter cannot be written: Not a directory"
