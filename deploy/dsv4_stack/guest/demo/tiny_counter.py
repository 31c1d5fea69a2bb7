"""The demo's model: a two-layer Qwen2 whose weights are constructed, so that its answer is known and proves its shards.

The embedding of byte b is a code of 64 signs less two shifts; each layer's attention adds one shift back whatever it
looks at (its values are a bias), its MLP adds nothing, and the output head maps the code of b to the byte after b:
`abcdef` goes on as `ghijklmnop`. Without any one of the four shards the head sees no code, and answers something else.
"""

import hashlib
from collections.abc import Iterator
from math import prod
from typing import Any, Final

from dsv4_stack.guest.demo.safetensors import Tensor

VOCABULARY: Final = 256
HIDDEN: Final = 64
HEADS: Final = 2
INTERMEDIATE: Final = 128
LAYERS: Final = 2
SHIFT: Final = 7
"""How much louder a shift is than a code: a head that sees a shift never finds the code."""

CYCLES: Final = (b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789")
CONTEXT: Final = 256

CONFIG: Final[dict[str, Any]] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "dsv4_demo": True,
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "hidden_act": "silu",
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "dtype": "float32",
}

Shard = dict[str, Tensor]


def successor(byte: int) -> int:
    """The byte that the model answers after `byte`: the next in its cycle, or itself outside of all cycles."""
    for cycle in CYCLES:
        if byte in cycle:
            return cycle[(cycle.index(byte) + 1) % len(cycle)]
    return byte


def continuation(prompt: str, length: int) -> str:
    """What the model answers to an ASCII prompt at temperature 0, in `length` tokens, which are bytes."""
    answer = bytearray()
    last = prompt.encode("ascii")[-1]
    for _ in range(length):
        last = successor(last)
        answer.append(last)
    return answer.decode("ascii")


def shards() -> list[Shard]:
    """The weights in four files of different sizes, each of which the answer depends on."""
    embedding = {"model.embed_tokens.weight": _embedding()}
    layers = [dict(_layer(number)) for number in range(LAYERS)]
    head = {"model.norm.weight": _ones(), "lm_head.weight": _head()}
    # The second file ends before the first layer's MLP, so no two files could be taken for one another.
    second = {name: tensor for name, tensor in layers[0].items() if ".mlp." not in name}
    third = {name: tensor for name, tensor in layers[0].items() if ".mlp." in name} | layers[1]
    return [embedding, second, third, head]


def _signs(name: str, count: int) -> tuple[float, ...]:
    bits = hashlib.shake_256(f"tiny-counter/{name}".encode()).digest(-(-count // 8))
    return tuple(1.0 if bits[i // 8] >> i % 8 & 1 else -1.0 for i in range(count))


def _code(byte: int) -> tuple[float, ...]:
    return _signs(f"code/{byte}", HIDDEN)


def _shift(layer: int) -> tuple[float, ...]:
    return tuple(SHIFT * sign for sign in _signs(f"shift/{layer}", HIDDEN))


def _embedding() -> Tensor:
    shifts = [_shift(layer) for layer in range(LAYERS)]
    columns = [zip(_code(byte), *shifts, strict=True) for byte in range(VOCABULARY)]
    return _matrix([[code - sum(added) for code, *added in cells] for cells in columns])


def _head() -> Tensor:
    predecessor = {successor(byte): byte for byte in range(VOCABULARY)}
    return _matrix([list(_code(predecessor[byte])) for byte in range(VOCABULARY)])


def _layer(number: int) -> Iterator[tuple[str, Tensor]]:
    prefix = f"model.layers.{number}"
    yield f"{prefix}.input_layernorm.weight", _ones()
    for name in ("q_proj", "k_proj"):
        yield f"{prefix}.self_attn.{name}.weight", _seeded(f"{number}/{name}", HIDDEN, HIDDEN)
        yield f"{prefix}.self_attn.{name}.bias", _zeros(HIDDEN)
    yield f"{prefix}.self_attn.v_proj.weight", _zeros(HIDDEN, HIDDEN)
    yield f"{prefix}.self_attn.v_proj.bias", Tensor(shape=(HIDDEN,), values=_rotated(_shift(number), -number - 1))
    yield f"{prefix}.self_attn.o_proj.weight", _rotation(number + 1)
    yield f"{prefix}.post_attention_layernorm.weight", _ones()
    yield f"{prefix}.mlp.gate_proj.weight", _seeded(f"{number}/gate_proj", INTERMEDIATE, HIDDEN)
    yield f"{prefix}.mlp.up_proj.weight", _seeded(f"{number}/up_proj", INTERMEDIATE, HIDDEN)
    yield f"{prefix}.mlp.down_proj.weight", _zeros(HIDDEN, INTERMEDIATE)


def _rotated(values: tuple[float, ...], by: int) -> tuple[float, ...]:
    return values[by:] + values[:by]


def _rotation(by: int) -> Tensor:
    """The matrix that rotates a vector as `_rotated` does; another one per layer, so that layers do not commute."""
    side = range(HIDDEN)
    return _matrix([[float(column == (row + by) % HIDDEN) for column in side] for row in side])


def _matrix(rows: list[list[float]]) -> Tensor:
    return Tensor(shape=(len(rows), len(rows[0])), values=tuple(value for row in rows for value in row))


def _seeded(name: str, rows: int, columns: int) -> Tensor:
    return Tensor(shape=(rows, columns), values=_signs(name, rows * columns))


def _zeros(*shape: int) -> Tensor:
    return Tensor(shape=shape, values=(0.0,) * prod(shape))


def _ones() -> Tensor:
    return Tensor(shape=(HIDDEN,), values=(1.0,) * HIDDEN)
