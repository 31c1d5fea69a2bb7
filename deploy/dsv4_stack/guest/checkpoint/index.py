"""`model.safetensors.index.json`: which tensors each shard of a checkpoint has to hold."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from dsv4_stack.errors import IntegrityError
from dsv4_stack.guest.checkpoint import names
from dsv4_stack.guest.checkpoint.json_reader import Reader

LIMIT: Final = 64 << 20
_OTHER_BYTES: Final = 64 << 10
_PARTS: Final = 8
_NEXT: Final = "pin another revision"


class TensorNames(Collection[str]):
    """Names in one text: as 69,000 strings in sets they would take four times the memory."""

    def __init__(self, lines: bytes) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        start = 0
        while (end := self._lines.find(b"\n", start)) >= 0:
            yield self._lines[start:end].decode()
            start = end + 1

    def __len__(self) -> int:
        return self._lines.count(b"\n")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in iter(self)

    def lines(self) -> list[bytes]:
        return self._lines.split(b"\n")[:-1]


@dataclass(frozen=True, kw_only=True)
class Index:
    """The tensors that each shard has to hold, by the shard's path."""

    shards: dict[str, TensorNames]


def parse(content: bytes, name: str) -> Index:
    """The index of safe names, no tensor twice. `name` is for messages. Raises IntegrityError."""
    if len(content) > LIMIT:
        raise IntegrityError(f"{name} has more than {LIMIT} bytes; no index has", _NEXT)
    try:
        shards = _shards(Reader(content))
    except ValueError as error:
        raise IntegrityError(f"{name} has no weight_map from tensors to files: {error}", _NEXT) from None
    problems = names.problems_of(shards)
    problems += [f"{path!r}: no .safetensors file" for path in shards if not path.endswith(".safetensors")]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise IntegrityError(f"{name} names files that are no shards:\n{lines}", _NEXT)
    return Index(shards=shards)


def _shards(reader: Reader) -> dict[str, TensorNames]:
    shards: dict[str, bytearray] = {}
    seen = set()
    for key in reader.members():
        if key in seen:
            raise ValueError(f"the key {key!r} stands twice")
        seen.add(key)
        if key == "weight_map":
            _read_map(reader, shards)
        else:
            reader.value(_OTHER_BYTES)
    reader.end()
    if not shards:
        raise ValueError("there is none, or it is empty")
    found = {path: TensorNames(bytes(shards.pop(path))) for path in list(shards)}
    _refuse_repeats(found)
    return found


def _read_map(reader: Reader, shards: dict[str, bytearray]) -> None:
    for tensor in reader.members():
        if not tensor.isprintable():
            raise ValueError(f"the tensor {tensor!r} has an unprintable name")
        path = reader.text()
        shards.setdefault(path, bytearray()).extend(tensor.encode() + b"\n")


def _refuse_repeats(shards: dict[str, TensorNames]) -> None:
    """In parts, so that never more than a few of the names are objects at a time."""
    for part in range(_PARTS):
        seen: set[bytes] = set()
        for tensors in shards.values():
            for line in tensors.lines():
                if hash(line) % _PARTS != part:
                    continue
                if line in seen:
                    raise ValueError(f"the tensor {line.decode()!r} stands twice")
                seen.add(line)
