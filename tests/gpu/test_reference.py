"""The reference itself, against arithmetic by hand. It needs torch and no GPU, and stands here beside what uses it."""

import math
import random

import pytest

torch = pytest.importorskip("torch", reason="the reference is torch's arithmetic")

from gpu import moe  # noqa: E402

pytestmark = pytest.mark.gpu

TOKENS, HIDDEN, INTERMEDIATE, EXPERTS, TOPK = 3, 256, 128, 4, 2


def test_int4_are_unpacked_lowest_first_less_eight() -> None:
    packed = torch.tensor([[0x76543210, -0x01234568]], dtype=torch.int32)  # the second is 0xFEDCBA98
    assert moe.unpacked(packed).tolist() == [[float(value) for value in range(-8, 8)]]


def test_the_clamp_holds_gates_from_above_and_ups_from_both_sides() -> None:
    gate, up = torch.tensor([12.0, -12.0, 3.0, 3.0]), torch.tensor([2.0, 2.0, 12.0, -12.0])
    silu = [value / (1 + math.exp(-value)) for value in (10.0, -12.0, 3.0, 3.0)]
    expected = [silu[0] * 2, silu[1] * 2, silu[2] * 10, silu[3] * -10]
    assert moe.swiglu(gate, up, 10.0).tolist() == pytest.approx(expected, rel=1e-6)
    assert moe.swiglu(gate, up, None).tolist() == pytest.approx(
        [12 / (1 + math.exp(-12)) * 2, silu[1] * 2, silu[2] * 12, silu[3] * -12], rel=1e-6
    )


@pytest.mark.parametrize("limit", [None, 10.0])
@pytest.mark.parametrize("drive", [1.0, 40.0])
def test_a_layer_is_what_loops_over_floats_make_it(limit: float | None, drive: float) -> None:
    x, experts, weights, chosen = inputs = _inputs(drive)
    answer = moe.layer(x, experts, weights, chosen, limit=limit)
    expected = [_by_hand(token, *inputs, limit=limit) for token in range(TOKENS)]
    assert answer.output.tolist() == [pytest.approx(row, rel=1e-3, abs=1e-3 * drive) for row in expected]


def test_it_says_what_the_clamp_met() -> None:
    x, experts, weights, chosen = _inputs(40.0)
    driven = moe.layer(x, experts, weights, chosen, limit=10.0)
    assert driven.largest > 10
    assert 0.05 < driven.gates_past < driven.ups_past < 0.8
    calm = moe.layer(x / 40, experts, weights, chosen, limit=10.0)
    assert (calm.largest < 10, calm.gates_past, calm.ups_past) == (True, 0.0, 0.0)


def test_w4a8_arithmetic_stays_near_the_definition() -> None:
    x, experts, weights, chosen = _inputs(1.0)
    exact = moe.layer(x, experts, weights, chosen, limit=10.0).output
    rounded = moe.layer(x, experts, weights, chosen, limit=10.0, linear=moe.as_w4a8).output
    assert 0.001 < ((rounded - exact).norm() / exact.norm()).item() < 0.1


def _inputs(drive: float) -> tuple[torch.Tensor, moe.Experts, torch.Tensor, torch.Tensor]:
    draw = random.Random(4)  # noqa: S311
    x = torch.tensor([[draw.gauss(0, drive) for _ in range(HIDDEN)] for _ in range(TOKENS)]).bfloat16()
    experts = moe.Experts.random(EXPERTS, HIDDEN, INTERMEDIATE, seed=4, device="cpu")
    chosen = torch.tensor([draw.sample(range(EXPERTS), TOPK) for _ in range(TOKENS)])
    return x, experts, torch.tensor([[0.75, 0.25]] * TOKENS), chosen


def _by_hand(
    token: int,
    x: torch.Tensor,
    experts: moe.Experts,
    weights: torch.Tensor,
    chosen: torch.Tensor,
    *,
    limit: float | None,
) -> list[float]:
    total = [0.0] * HIDDEN
    for weight, expert in zip(weights[token].tolist(), chosen[token].tolist(), strict=True):
        both = _times(experts.w13[expert], experts.w13_scale[expert], x[token].tolist())
        inner = []
        for gate, up in zip(both[:INTERMEDIATE], both[INTERMEDIATE:], strict=True):
            held = (gate, up) if limit is None else (min(gate, limit), max(-limit, min(up, limit)))
            inner.append(held[0] / (1 + math.exp(-held[0])) * held[1])
        part = _times(experts.w2[expert], experts.w2_scale[expert], inner)
        total = [old + weight * new for old, new in zip(total, part, strict=True)]
    return total


def _times(packed: torch.Tensor, scale: torch.Tensor, vector: list[float]) -> list[float]:
    product = []
    for words, scales in zip(packed.tolist(), scale.tolist(), strict=True):
        row = [((word >> 4 * nibble) & 0xF) - 8 for word in words for nibble in range(8)]
        product.append(
            sum(value * scales[at // moe.GROUP] * vector[at] for at, value in enumerate(row)),
        )
    return product
