"""dsv4.lock: there and back, and laid over the pins."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack import assets, lock, pins
from dsv4_stack.errors import ConfigError

PINS = pins.load(assets.PINS)
SHA = "a" * 64
COMMIT = "b" * 40
OVERLAY = "endnai/DeepSeek-V4-Flash-W4A8-FP8"
NIGHTLY = PINS.engines["nightly"]
assert NIGHTLY.wheel is not None
FULL = lock.Lock(
    engines={"nightly": lock.LockedWheel(url=NIGHTLY.wheel.url, sha256=SHA, size=9)},
    repos={
        OVERLAY: lock.LockedRepo(
            requested="main", revision=COMMIT, files={"config.json": lock.LockedFile(size=1, sha256=SHA)}
        )
    },
)

text = st.text(st.characters(codec="utf-8"), max_size=20)
locked_file = st.builds(lock.LockedFile, size=st.integers(min_value=0), sha256=text)
locks = st.builds(
    lock.Lock,
    engines=st.dictionaries(text, st.builds(lock.LockedWheel, url=text, sha256=text, size=st.integers(min_value=0))),
    repos=st.dictionaries(
        text,
        st.builds(lock.LockedRepo, requested=text, revision=text, files=st.dictionaries(text, locked_file, max_size=3)),
        max_size=3,
    ),
)


@given(locks)
def test_a_lock_survives_its_file(tmp_path_factory: pytest.TempPathFactory, known: lock.Lock) -> None:
    path = tmp_path_factory.mktemp("lock") / "dsv4.lock"
    path.write_text(known.text(), encoding="utf-8")
    assert lock.load(path) == known


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert lock.load(tmp_path / "dsv4.lock") == lock.Lock()


def test_the_committed_lock_is_one() -> None:
    assert lock.load(assets.ROOT / assets.LOCK_NAME).text() == (assets.ROOT / assets.LOCK_NAME).read_text("utf-8")


@pytest.mark.parametrize(
    "broken", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "engines": {"a": {}}, "repos": {}}']
)
def test_a_broken_lock_says_what_to_run(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "dsv4.lock"
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        lock.load(path)
    assert caught.value.message.startswith(f"{path} is not a lock: ")
    assert caught.value.next_step == "run: dsv4 lock --upgrade"


def test_a_lock_fills_in_what_is_unlocked() -> None:
    locked = lock.apply(PINS, FULL)
    assert locked.engines["nightly"].wheel == pins.Wheel(url=NIGHTLY.wheel.url, sha256=SHA)  # type: ignore[union-attr]
    overlay = locked.checkpoints["w4a8"].overlay
    assert overlay is not None
    assert overlay.reference == f"{OVERLAY}@{COMMIT}"
    assert lock.unlocked([locked.engines["nightly"]], [], FULL) == []


def test_an_entry_for_another_pin_is_left_out() -> None:
    stale = lock.Lock(
        engines={"nightly": lock.LockedWheel(url="https://elsewhere/x.whl", sha256=SHA, size=9)},
        repos={OVERLAY: lock.LockedRepo(requested="other-branch", revision=COMMIT, files={})},
    )
    assert lock.apply(PINS, stale) == PINS
