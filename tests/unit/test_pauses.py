"""Hosts that are too busy are left alone by all connections, and no more of them are opened."""

from types import SimpleNamespace

import pytest
from helpers.clock import Clock

from dsv4_stack.guest.download import pauses
from dsv4_stack.guest.download.pauses import Pauses

HUB = "https://hub.example/org/base/a"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pauses, "time", SimpleNamespace(monotonic=made))
    return made


def test_a_pause_is_of_a_host_and_ends(clock: Clock) -> None:
    busy = Pauses(60)
    assert busy.left_s(HUB) == 0
    busy.begin(HUB, 5)
    assert [busy.left_s(url) for url in (HUB, "https://hub.example/b?x", "https://cdn.example/a")] == [5, 5, 0]
    clock.now += 2
    busy.begin(HUB, 1)
    assert busy.left_s(HUB) == 3
    busy.begin(HUB, 7)
    assert busy.left_s(HUB) == 7
    clock.now += 8
    assert busy.left_s(HUB) == 0


@pytest.mark.parametrize("wait_s", [0, 30])
def test_it_is_calm_when_no_host_was_busy_for_some_time(clock: Clock, wait_s: float) -> None:
    clock.now = 0
    busy = Pauses(60)
    assert busy.is_calm
    busy.begin(HUB, wait_s)
    assert not busy.is_calm
    clock.now += wait_s + 59
    assert not busy.is_calm
    clock.now += 1
    assert busy.is_calm
