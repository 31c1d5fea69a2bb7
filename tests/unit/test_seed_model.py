"""The demo model's answer, worked out from its weights alone, and that every shard has a part in it."""

import pytest

from dsv4_stack.guest.demo import byte_tokenizer, tiny_counter
from dsv4_stack.guest.demo.safetensors import Tensor

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def shards() -> list[Weights]:
    return tiny_counter.shards()


def joined(shards: list[Weights]) -> Weights:
    return {name: tensor for shard in shards for name, tensor in shard.items()}


def rows(matrix: Tensor) -> list[tuple[float, ...]]:
    width = matrix.shape[1]
    return [matrix.values[start : start + width] for start in range(0, len(matrix.values), width)]


def times(matrix: Tensor, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows(matrix))


def answer(weights: Weights, byte: int) -> int:
    """Attention of values that are a bias is that bias, whatever it attends to; RMS norms only scale by a positive."""
    state = rows(weights["model.embed_tokens.weight"])[byte]
    for layer in range(tiny_counter.LAYERS):
        attention = f"model.layers.{layer}.self_attn"
        values = weights[f"{attention}.v_proj.bias"].values
        state = tuple(map(sum, zip(state, times(weights[f"{attention}.o_proj.weight"], values), strict=True)))
    gained = tuple(a * b for a, b in zip(state, weights["model.norm.weight"].values, strict=True))
    logits = times(weights["lm_head.weight"], gained)
    return logits.index(max(logits))


def zeroed(shard: Weights) -> Weights:
    return {name: Tensor(shape=tensor.shape, values=(0.0,) * len(tensor.values)) for name, tensor in shard.items()}


def test_what_the_reference_leaves_out_adds_nothing(shards: list[Weights]) -> None:
    weights = joined(shards)
    for layer in range(tiny_counter.LAYERS):
        for name in ("self_attn.v_proj.weight", "mlp.down_proj.weight"):
            assert not any(weights[f"model.layers.{layer}.{name}"].values)


def test_every_byte_is_answered_with_its_successor(shards: list[Weights]) -> None:
    weights = joined(shards)
    assert [answer(weights, byte) for byte in range(256)] == [tiny_counter.successor(byte) for byte in range(256)]


@pytest.mark.parametrize("lost", range(4))
def test_without_a_shard_the_answer_is_another(shards: list[Weights], lost: int) -> None:
    broken = joined([zeroed(shard) if number == lost else shard for number, shard in enumerate(shards)])
    answers = [answer(broken, byte) for byte in b"fghijklmnopqrstu"]
    assert all(got != tiny_counter.successor(byte) for got, byte in zip(answers, b"fghijklmnopqrstu", strict=True))


def test_with_its_layers_mixed_up_the_answer_is_another(shards: list[Weights]) -> None:
    weights = joined(shards)
    first, second = (f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (0, 1))
    mixed = weights | {first: weights[second], second: weights[first]}
    assert answer(mixed, ord("f")) != ord("g")


@pytest.mark.parametrize(
    ("prompt", "length", "expected"),
    [
        ("abcdef", 16, "ghijklmnopqrstuv"),
        ("xyz", 3, "abc"),
        ("Y", 3, "ZAB"),
        ("0 to 8", 4, "9012"),
        ("wait!", 3, "!!!"),
    ],
)
def test_continuation(prompt: str, length: int, expected: str) -> None:
    assert tiny_counter.continuation(prompt, length) == expected


def test_a_token_is_a_byte() -> None:
    model = byte_tokenizer.tokenizer()["model"]
    assert isinstance(model, dict)
    vocabulary = model["vocab"]
    assert sorted(vocabulary.values()) == list(range(256))
    assert {byte: vocabulary[chr(byte)] for byte in range(0x21, 0x7F)} == {byte: byte for byte in range(0x21, 0x7F)}
    # The stand-ins that GPT-2's vocabulary is known for: newline, space, the soft hyphen.
    assert (vocabulary["Ċ"], vocabulary["Ġ"], vocabulary["Ń"]) == (0x0A, 0x20, 0xAD)
