"""The engine matrix: what each engine needs, by the patches' own ranges, and that every one of them can be rendered."""

from dataclasses import replace

import pytest

from dsv4_stack import __main__ as cli
from dsv4_stack import assets, lock, matrix, pins, profile, render
from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.plan import make_plan

PINS = pins.load(assets.PINS)
GPU_ENGINES = [name for name, engine in PINS.engines.items() if engine.image == "serve"]
CONFIDENTIAL = [name for name, found in profile.shipped().items() if "TDX" in found.description]


def test_each_engine_needs_what_its_release_lacks() -> None:
    needs = {row.engine.name: " ".join(patch.name[:4] for patch in row.needed) for row in matrix.rows(PINS)}
    assert needs == {
        "nightly": "0001 0002 0003 0004 0005",
        "v0.23.0": "0001 0002 0003 0004 0005",
        "v0.26.0": "0001 0002 0003 0004 0005",
        "v0.28.0": "0001 0002 0003",
        "v0.30.0": "0003",
        "v0.33.0": "",
        "cpu": "0003",
    }


def test_hazards_go_by_release() -> None:
    found = {name: [hazard.name for hazard in matrix.hazards(PINS, PINS.engines[name])] for name in PINS.engines}
    assert found == {
        "nightly": ["symmetric-memory", "mtp-wo-a"],
        "v0.23.0": ["symmetric-memory", "mtp-projections-without-a-name", "mtp-wo-a"],
        "v0.26.0": ["symmetric-memory", "mtp-wo-a"],
        "v0.28.0": ["symmetric-memory", "model-runner-v2", "mtp-wo-a"],
        "v0.30.0": ["symmetric-memory", "model-runner-v2", "flashinfer-all-reduce"],
        "v0.33.0": ["symmetric-memory", "model-runner-v2", "flashinfer-all-reduce"],
        "cpu": [],
    }


def test_no_engine_is_of_a_release_with_regressions_on_hopper() -> None:
    span = PINS.hazards["hopper-regressions"].span
    assert [row.engine.name for row in matrix.rows(PINS) if row.facts.release in span] == []
    assert Release(0, 27, 1) in span


def test_neighbours_that_take_different_patches_do_not_speak_for_a_commit() -> None:
    engine = replace(PINS.engines["nightly"], releases=("0.26.0", "0.28.0"))
    with pytest.raises(ConfigError) as raised:
        matrix.needed(PINS, engine)
    assert str(raised.value) == (
        "engine nightly: its releases 0.26.0, 0.28.0 take different patches\n"
        "  next: name releases between which upstream changed nothing that a patch touches"
    )
    # The same patches, but not the same lines of them.
    with pytest.raises(ConfigError):
        matrix.needed(PINS, replace(engine, releases=("0.22.1", "0.23.0")))


@pytest.mark.parametrize("name", CONFIDENTIAL)
@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_a_confidential_profile_avoids_what_can_be_avoided_on_every_engine(engine: str, name: str) -> None:
    plan = make_plan(PINS, profile.load(name), lock.Lock(), engine=engine)
    assert plan.serve_env["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert plan.beware == []


def test_a_plan_says_what_its_settings_leave_in() -> None:
    plan = make_plan(PINS, profile.load("w4a8-tp2-baremetal"), lock.Lock(), engine="v0.30.0")
    assert [text.partition(":")[0] for text in plan.beware] == [
        "symmetric-memory",
        "model-runner-v2",
        "flashinfer-all-reduce",
    ]


@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_every_engine_renders(engine: str) -> None:
    plan = make_plan(PINS, profile.load("w4a8-tp2"), lock.Lock(), engine=engine)
    files = render.render_plan(plan)
    dockerfile = files[plan.serve.context.output]
    assert f"ARG BASE_IMAGE={PINS.engines[engine].base}\n" in dockerfile
    release = PINS.releases[PINS.engines[engine].releases[0]].release
    assert f"patches apply --series /opt/dsv4/patches --release {release}\n" in dockerfile
    assert plan.serve.reference in files["compose/compose.yaml"]


def test_a_locked_digest_goes_into_the_dockerfile_and_changes_the_image() -> None:
    digest = "sha256:" + "d" * 64
    unlocked = make_plan(PINS, profile.load("w4a8-tp2"), lock.Lock(), engine="v0.33.0")
    known = lock.Lock(images={"vllm/vllm-openai:v0.33.0": digest})
    locked = make_plan(lock.apply(PINS, known), profile.load("w4a8-tp2"), known, engine="v0.33.0")
    assert "engine v0.33.0: digest of vllm/vllm-openai:v0.33.0 unlocked" in unlocked.unlocked
    assert not [entry for entry in locked.unlocked if "v0.33.0" in entry]
    text = render.render_dockerfile(locked.serve.context)
    assert f"ARG BASE_IMAGE=vllm/vllm-openai:v0.33.0@{digest}\n" in text
    assert f'LABEL org.opencontainers.image.base.digest="{digest}"\n' in text
    assert locked.serve.reference != unlocked.serve.reference


def test_the_verb_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == ["nightly, the default", *list(PINS.engines)[1:]]
    newest = blocks[5].splitlines()
    assert newest[:9] == [
        "v0.33.0: the newest release; needs no patch",
        "  vLLM 0.33.0, model runner V2",
        "  torch 2.14.0, transformers <5.21.0,>=5.16.1",
        "  image vllm/vllm-openai:v0.33.0 (unlocked: dsv4 lock)",
        "  upstream since 0.29.0: 0001-packed-modules-mapping",
        "  upstream since 0.29.0: 0002-packed-modules-mapping-mtp",
        "  upstream since 0.33.0: 0003-hash-moe-layer-type",
        "  upstream since 0.27.0: 0004-o-proj-scale-name",
        "  upstream since 0.28.0: 0005-w4a8-swiglu-clamp",
    ]
    assert newest[9] == "  MTP: opt-in"
    assert [line.partition(":")[0] for line in newest[10:]] == [
        "  beware, symmetric-memory",
        "  beware, model-runner-v2",
        "  beware, flashinfer-all-reduce",
    ]
