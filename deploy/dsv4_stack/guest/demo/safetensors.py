"""Write safetensors files of float32 tensors, the same bytes everywhere (https://github.com/huggingface/safetensors#format)."""

import json
import struct
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A float32 tensor; `values` are row-major and as many as `shape` says."""

    shape: tuple[int, ...]
    values: tuple[float, ...]

    def to_bytes(self) -> bytes:
        cells = array("f", self.values)
        if sys.byteorder == "big":
            cells.byteswap()
        return cells.tobytes()


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """One file: the header's length in 8 bytes, the header in JSON, then the tensors in the mapping's order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    blobs = [tensor.to_bytes() for tensor in tensors.values()]
    end = 0
    for (name, tensor), blob in zip(tensors.items(), blobs, strict=True):
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + len(blob)]}
        end += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(padded)) + padded + b"".join(blobs)
