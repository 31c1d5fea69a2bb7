"""What of a run is counted, and how fast it goes: by a clock of the test's own."""

import threading

import pytest
from helpers.clock import Clock

from dsv4_stack.guest.checkpoint import progress_view
from dsv4_stack.guest.checkpoint.tally import Moving, Snapshot, Tally


def test_a_run_is_counted_file_by_file() -> None:
    clock = Clock()
    tally = Tally({"a": 100, "b": 1000, "c": 0, "untouched": 5}, clock=clock)
    tally.reuse("b", 300)
    tally.advance("a", 60)
    clock.now += 2
    tally.advance("a", 40)
    tally.advance("b", 200)
    tally.finish("a")
    tally.finish("c")
    assert tally.snapshot() == Snapshot(
        files=2,
        all_files=4,
        done=600,
        size=1105,
        reused=300,
        rate=150.0,
        stalled_s=0.0,
        elapsed_s=2.0,
        moving=(Moving(path="b", done=500, size=1000, rate=0.0),),
    )


def test_reused_bytes_make_no_rate() -> None:
    clock = Clock()
    tally = Tally({"a": 100}, clock=clock)
    tally.reuse("a", 90)
    clock.now += 1
    assert (tally.snapshot().rate, tally.snapshot().eta_s) == (0.0, None)
    tally.finish("a")
    assert (tally.snapshot().done, tally.snapshot().reused, tally.snapshot().eta_s) == (100, 90, 0.0)


def test_a_file_that_starts_again_no_longer_counts() -> None:
    clock = Clock()
    tally = Tally({"a": 100}, clock=clock)
    tally.reuse("a", 10)
    tally.advance("a", 50)
    clock.now += 1
    tally.snapshot()
    tally.retreat("a")
    now = tally.snapshot()
    assert (now.done, now.reused, now.moving, now.rate) == (0, 0, (), 50.0)
    tally.advance("a", 20)
    clock.now += 1
    assert tally.snapshot().moving == (Moving(path="a", done=20, size=100, rate=0.0),)


def test_more_than_a_file_holds_is_not_counted() -> None:
    tally = Tally({"a": 100}, clock=Clock())
    tally.reuse("a", 150)
    tally.advance("a", 50)
    now = tally.snapshot()
    assert (now.done, now.reused, now.moving) == (100, 100, (Moving(path="a", done=100, size=100, rate=0.0),))


def test_what_is_not_followed_or_is_finished_is_not_counted() -> None:
    tally = Tally({"a": 100}, clock=Clock())
    tally.finish("a")
    before = tally.snapshot()
    for path in ("a", "b"):
        tally.advance(path, 1)
        tally.reuse(path, 1)
        tally.retreat(path)
        tally.finish(path)
    assert tally.snapshot() == before


def test_the_rate_is_that_of_the_last_half_minute_and_the_summary_that_of_the_whole() -> None:
    clock = Clock()
    tally = Tally({"a": 10_000}, clock=clock)
    rates = []
    for count in [100] * 40 + [10] * 40:
        clock.now += 1
        tally.advance("a", count)
        now = tally.snapshot()
        rates.append(now.rate)
        assert now.moving[0].rate == pytest.approx(now.rate if clock.now > 1032 else (100.0, 0.0)[clock.now == 1001])
    assert rates[:40] == [100.0] * 40
    assert rates[54] == (15 * 100 + 15 * 10) / 30
    assert rates[69:] == [10.0] * 11
    assert tally.summary().rate == 4400 / 80


def test_a_stall_is_named_and_ends_with_the_next_byte() -> None:
    clock = Clock()
    tally = Tally({"a": 1000}, clock=clock)
    tally.advance("a", 300)
    clock.now += 14.75
    assert (tally.snapshot().stalled_s, tally.snapshot().eta_s) == (0.0, 700 / (300 / 14.75))
    clock.now += 5.25
    assert (tally.snapshot().stalled_s, tally.snapshot().eta_s, tally.snapshot().rate) == (20.0, None, 15.0)
    tally.advance("a", 300)
    assert (tally.snapshot().stalled_s, tally.snapshot().eta_s) == (0.0, 400 / 30)


def test_proving_what_has_come_is_no_stall() -> None:
    clock = Clock()
    tally = Tally({"a": 1000}, clock=clock)
    tally.advance("a", 1000)
    clock.now += 100
    assert (tally.snapshot().stalled_s, tally.snapshot().eta_s) == (0.0, 0.0)


def test_nothing_to_bring_is_all_done() -> None:
    now = Tally({}, clock=Clock()).summary()
    assert (now.eta_s, progress_view.line(now)) == (0.0, "0/0 files, 0/0 bytes (100 %), 0 bytes/s")


def test_no_count_of_many_threads_is_lost() -> None:
    tally = Tally({"a": 24_000, "b": 1})

    def thousand() -> None:
        for _ in range(1000):
            tally.advance("a", 1)

    threads = [threading.Thread(target=thousand) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.snapshot().done == 24_000
