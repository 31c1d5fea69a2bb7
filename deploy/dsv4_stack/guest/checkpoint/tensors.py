"""A safetensors file's header, held against the file's length and the index; no tensor is loaded.

https://github.com/huggingface/safetensors#format
"""

import math
import os
import threading
from array import array
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest.checkpoint.json_reader import Reader
from dsv4_stack.guest.files import reading

HEADER_LIMIT: Final = 100_000_000
LENGTH_BYTES: Final = 8
LOOKING: Final = threading.Lock()
"""Is held from before a header is read until it is checked: that takes three times its bytes, and many come at once."""

_ENTRY_BYTES: Final = 4096
_RANK: Final = 64
_MOST: Final = (1 << 63) - 1
_METADATA: Final = "__metadata__"
_NEXT: Final = "take it from a revision or a folder where it is whole"
_KEYS: Final = ["data_offsets", "dtype", "shape"]
_BITS: Final = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E8M0", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


def header_length(first8: bytes, size: int, name: str) -> int:
    """Bytes of the header, of a file of `size` bytes that begins with these eight. Raises IntegrityError."""
    if len(first8) < LENGTH_BYTES or size < LENGTH_BYTES:
        raise _broken(name, f"has {min(len(first8), size)} bytes, fewer than the {LENGTH_BYTES} of a header's length")
    length = int.from_bytes(first8[:LENGTH_BYTES], "little")
    if length > HEADER_LIMIT:
        raise _broken(name, f"its header would have {length} bytes, more than {HEADER_LIMIT}")
    if LENGTH_BYTES + length > size:
        raise _broken(name, f"its header would have {length} bytes, the whole file has {size}")
    return length


def check(header: bytes, size: int, name: str, expected: Collection[str] | None) -> None:
    """Whether the tensors fill the rest of a file of `size` bytes, and those that are expected are among them.

    Raises IntegrityError.
    """
    try:
        tensors, ends = _tensors(header)
        _check_ends(ends, size - LENGTH_BYTES - len(header))
    except ValueError as error:
        raise _broken(name, str(error)) from None
    if missing := [tensor for tensor in expected or () if tensor not in tensors]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise _broken(name, f"lacks tensors that the index puts there: {', '.join(sorted(missing)[:3])}{more}")


def check_file(path: Path, expected: Collection[str] | None, name: str) -> None:
    """`check` of a file, of which no more than the header is read. Raises IntegrityError, NotFoundError, Dsv4Error."""
    with LOOKING:
        with reading(path), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(header_length(file.read(LENGTH_BYTES), size, name))
        check(header, size, name, expected)


def _broken(name: str, fact: str) -> IntegrityError:
    return IntegrityError(f"{name} is no whole safetensors file: {fact}", _NEXT)


def _tensors(header: bytes) -> tuple[set[str], "array[int]"]:
    """The tensors' names, and where each begins and ends in the data, one number after the other."""
    if not header.startswith(b"{"):
        raise ValueError("its header should begin with {")
    reader = Reader(header)
    names: set[str] = set()
    ends = array("Q")
    for name in reader.members():
        if name in names:
            raise ValueError(f"{name!r} stands twice")
        names.add(name)
        if name == _METADATA:
            _check_metadata(reader)
        else:
            ends.extend(_begin_and_end(name, reader.value(_ENTRY_BYTES)))
    reader.end()
    names.discard(_METADATA)
    return names, ends


def _check_metadata(reader: Reader) -> None:
    keys = set()
    for key in reader.members():
        reader.text()
        if key in keys:
            raise ValueError(f"{_METADATA}: {key!r} stands twice")
        keys.add(key)


def _begin_and_end(name: str, entry: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever JSON there is
    if not isinstance(entry, dict) or sorted(entry) != _KEYS:
        raise ValueError(f"tensor {name!r} should have a dtype, a shape and data_offsets")
    bits = _BITS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if bits is None:
        raise ValueError(f"tensor {name!r}: no dtype that is known")
    shape, offsets = (_numbers(name, entry[key]) for key in ("shape", "data_offsets"))
    if len(offsets) != 2 or len(shape) > _RANK:
        raise ValueError(f"tensor {name!r}: not two data_offsets, or more than {_RANK} dimensions")
    begin, end = offsets
    if math.prod(shape) * bits != (end - begin) * 8:
        raise ValueError(f"tensor {name!r}: its shape does not go with bytes {begin} to {end}")
    return begin, end


def _numbers(name: str, value: object) -> list[int]:
    if not isinstance(value, list) or any(type(number) is not int or not 0 <= number <= _MOST for number in value):
        raise ValueError(f"tensor {name!r}: no list of whole numbers")
    return value


def _check_ends(ends: "array[int]", size: int) -> None:
    """Each tensor begins where one before it ends, and the last ends with the data."""
    at = 0
    # As one number each, which sorts as the pair does and takes a third of its memory.
    for span in sorted(begin << 63 | end for begin, end in zip(ends[::2], ends[1::2], strict=True)):
        begin, end = span >> 63, span & _MOST
        if begin != at:
            raise ValueError(f"a tensor begins at byte {begin} of the data, the one before it ends at {at}")
        at = end
    if at != size:
        raise ValueError(f"its tensors take {at} bytes, {size} follow the header")
