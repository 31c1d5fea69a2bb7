"""Where a value comes from: flag > environment > profile, the last file that says it."""

from dsv4_stack import assets, lock, pins, profile
from dsv4_stack.plan import make_plan
from dsv4_stack.provenance import Origin, explain, explain_pins


def origins(name: str, environment: dict[str, str], flags: dict[str, str]) -> dict[str, Origin]:
    plan = make_plan(pins.load(assets.PINS), profile.load(name), lock.Lock())
    return {origin.key: origin for origin in explain(plan, environment, flags)}


def test_the_last_file_that_says_it_wins_and_its_comment_is_the_reason() -> None:
    found = origins("w4a8-tp4", {}, {})
    assert found["machine.gpus"] == Origin(
        key="machine.gpus", value="4", source="w4a8-tp4.toml", reason="Four GPUs of one machine."
    )
    assert found["serve.flags.block-size"] == Origin(
        key="serve.flags.block-size",
        value="256",
        source="w4a8-tp2.toml",
        reason="The only block size that the sparse MLA backend supports.",
    )


def test_the_environment_beats_the_profile_and_a_flag_beats_both() -> None:
    environment = {"DSV4_PORT": "9000", "DSV4_ENGINE": "cpu"}
    found = origins("w4a8-tp2", environment, {"engine": "v0.23.0"})
    assert (found["serve.port"].value, found["serve.port"].source) == ("9000", "$DSV4_PORT")
    assert (found["engine"].value, found["engine"].source) == ("v0.23.0", "--engine")


def test_every_key_of_every_profile_is_explained() -> None:
    for name, shipped in profile.shipped().items():
        found = origins(name, {}, {})
        assert {f"serve.flags.{flag}" for flag in shipped.serve.flags} <= found.keys()
        assert [key for key, origin in found.items() if not origin.reason] == []


def test_pins_lock_and_what_is_unlocked_are_told_apart() -> None:
    pinned = pins.load(assets.PINS)
    repo = "endnai/DeepSeek-V4-Flash-W4A8-FP8"
    known = lock.Lock(repos={repo: lock.LockedRepo(requested="main", revision="f" * 40, files={})})
    plan = make_plan(lock.apply(pinned, known), profile.load("w4a8-tp2"), known)
    found = {origin.key: (origin.value, origin.source) for origin in explain_pins(plan, pinned)}
    assert found["engine.wheel.sha256"] == ("", "unlocked")
    assert found["checkpoint.base.revision"] == ("0bbee82146562d9b7e4687483d348c760e61ef3b", "pins.toml")
    assert found["checkpoint.overlay.revision"] == ("f" * 40, "dsv4.lock")
    assert found["engine.base"][1] == "pins.toml"


def test_flags_have_their_own_names() -> None:
    found = origins("w4a8-tp2", {}, {"weights.directory": "/data", "serve.port": "1"})
    assert (found["weights.directory"].source, found["serve.port"].source) == ("--weights", "--port")
