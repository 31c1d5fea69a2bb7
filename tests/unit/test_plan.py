"""Whole commands, whole environments: what the containers are started with."""

from dataclasses import replace
from pathlib import Path

import pytest

from dsv4_stack import assets, lock, pins, profile
from dsv4_stack.errors import ConfigError
from dsv4_stack.plan import Plan, flag_words, make_plan

PINS = pins.load(assets.PINS)
BASE = "canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP@0bbee82146562d9b7e4687483d348c760e61ef3b"


def plan_of(name: str, engine: str = "") -> Plan:
    return make_plan(PINS, profile.load(name), lock.Lock(), engine=engine)


def test_the_default_profile_serves_with_this_command() -> None:
    assert " ".join(plan_of("w4a8-tp2").serve_command) == (
        "--served-model-name deepseek-v4-flash-w4a8 --host 0.0.0.0 --port 8000 --shutdown-timeout 120 "
        "--tensor-parallel-size 2 --disable-custom-all-reduce --trust-remote-code --kv-cache-dtype fp8 "
        "--block-size 256 --max-model-len 32768 --gpu-memory-utilization 0.9 --tokenizer-mode deepseek_v4 "
        "--tool-call-parser deepseek_v4 --enable-auto-tool-choice --reasoning-parser deepseek_v4 "
        "--safetensors-load-strategy lazy "
        '--compilation-config {"pass_config": {"fuse_allreduce_rms": false}}'
    )


def with_mtp(tmp_path: Path, more: str = "") -> profile.Profile:
    path = tmp_path / "drafting.toml"
    path.write_text(f'extends = "w4a8-tp2"\n[serve]\nmtp = true\n{more}', encoding="utf-8")
    return profile.load(str(path))


@pytest.mark.parametrize("engine", ["v0.30.0", "v0.33.0"])
def test_mtp_is_one_flag_more_where_it_is_asked_for(tmp_path: Path, engine: str) -> None:
    plan = make_plan(PINS, with_mtp(tmp_path), lock.Lock(), engine=engine)
    draft = ["--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}']
    assert plan.serve_command == [*plan_of("w4a8-tp2", engine).serve_command, *draft]


@pytest.mark.parametrize("engine", ["nightly", "v0.26.0", "v0.28.0"])
def test_mtp_is_refused_where_it_cannot_work(tmp_path: Path, engine: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(PINS, with_mtp(tmp_path), lock.Lock(), engine=engine)
    assert str(caught.value) == (
        f"profile drafting: serve.mtp cannot work with engine {engine}: the draft's wo_a is BF16, and the o projection "
        "multiplies in FP8 alone (https://github.com/vllm-project/vllm/pull/43319)\n"
        "  next: choose one of: v0.30.0, v0.33.0; or leave mtp off"
    )


def test_every_reason_against_mtp_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(PINS, with_mtp(tmp_path), lock.Lock(), engine="v0.23.0")
    assert caught.value.message.count("https://github.com/vllm-project/vllm/pull/") == 2


def test_mtp_and_a_draft_of_ones_own_contradict_each_other(tmp_path: Path) -> None:
    own = '[serve.flags]\nspeculative-config = { method = "ngram" }\n'
    with pytest.raises(ConfigError) as caught:
        make_plan(PINS, with_mtp(tmp_path, own), lock.Lock(), engine="v0.33.0")
    assert caught.value.message == (
        "profile drafting: serve.mtp and serve.flags.speculative-config both choose the draft"
    )


def test_bare_metal_serves_without_the_cvm_flags() -> None:
    assert " ".join(plan_of("w4a8-tp2-baremetal").serve_command) == (
        "--served-model-name deepseek-v4-flash-w4a8 --host 0.0.0.0 --port 8000 --shutdown-timeout 120 "
        "--tensor-parallel-size 2 --trust-remote-code --kv-cache-dtype fp8 --block-size 256 --max-model-len 32768 "
        "--gpu-memory-utilization 0.9 --tokenizer-mode deepseek_v4 --tool-call-parser deepseek_v4 "
        "--enable-auto-tool-choice --reasoning-parser deepseek_v4 --safetensors-load-strategy lazy"
    )


def test_the_default_profile_serves_in_this_environment() -> None:
    assert plan_of("w4a8-tp2").serve_env == {
        "DSV4_MODEL_DIR": "/weights/DeepSeek-V4-Flash-W4A8-FP8",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": "3600",
        "DSV4_QUESTION": '{"model": "deepseek-v4-flash-w4a8", "prompt": "The capital of France is", '
        '"max_tokens": 8, "expect": "Paris", "token_ids": []}',
        "DSV4_PATIENCE": '{"ready_s": 3600, "stall_s": 600, "quiet_s": 60, "hang_s": 300, "grace_s": 15, '
        '"recheck_s": 300, "wrong_s": 30, "drain_s": 120, "weights_s": 60}',
        "DSV4_WARM": "[16, 128, 1024, 4096, 8192, 16384, 24576]",
        "DSV4_GPUS": "2",
        "HOME": "/cache/home",
        "USER": "dsv4",
        "VLLM_CACHE_ROOT": "/cache/vllm",
        "TRITON_CACHE_DIR": "/cache/triton",
        "TILELANG_CACHE_DIR": "/cache/tilelang",
        "CUTE_DSL_CACHE_DIR": "/cache/cute-dsl",
        "FLASHINFER_WORKSPACE_BASE": "/cache/flashinfer",
        "TVM_FFI_CACHE_DIR": "/cache/tvm-ffi",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "CUDA_CACHE_PATH": "/cache/cuda",
        "QUACK_CACHE_DIR": "/cache/quack",
        "HUMMING_CACHE_DIR": "/cache/humming",
        "XDG_CACHE_HOME": "/cache/xdg",
        "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
        "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "TILELANG_CLEANUP_TEMP_FILES": "1",
    }


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (
            "w4a8-tp2",
            (
                f"materialize --base {BASE} --config overlay --overlay endnai/DeepSeek-V4-Flash-W4A8-FP8@main "
                "--dest /weights/DeepSeek-V4-Flash-W4A8-FP8 --jobs 24 --stall-limit 600 "
                "--for-release 0.24.0 --for-gpus 2 --lock /dsv4.lock"
            ),
        ),
        (
            "w4a16-tp2",
            (
                f"materialize --base {BASE} --config base --dest /weights/DeepSeek-V4-Flash-W4A16-FP8-MTP --jobs 24 "
                "--stall-limit 600 --for-release 0.24.0 --for-gpus 2 --lock /dsv4.lock"
            ),
        ),
    ],
)
def test_the_init_container_materializes_with_this_command(name: str, command: str) -> None:
    assert " ".join(plan_of(name).materialize_command) == command


def test_allowed_files_are_named_in_the_command() -> None:
    known = profile.load("w4a16-tp2")
    allowing = replace(known, weights=replace(known.weights, allow=("*.py", "encoding/*.txt"), stall_limit_s=30))
    command = make_plan(PINS, allowing, lock.Lock()).materialize_command
    assert command[command.index("--jobs") : command.index("--for-release")] == [
        *("--jobs", "24", "--stall-limit", "30", "--allow", "*.py", "--allow", "encoding/*.txt")
    ]


def test_a_checkpoint_is_examined_for_who_is_to_load_it() -> None:
    plan = make_plan(PINS, replace(profile.load("w4a8-tp4"), engine="v0.33.0"), lock.Lock())
    assert str(plan.loader) == "vLLM 0.33.0 on 4 GPUs"
    drafting = replace(plan, profile=replace(plan.profile, serve=replace(plan.profile.serve, mtp=True)))
    assert str(drafting.loader) == "vLLM 0.33.0 on 4 GPUs, with the MTP draft"
    command = drafting.materialize_command
    assert command[command.index("--for-release") :] == [
        *("--for-release", "0.33.0", "--for-gpus", "4", "--for-mtp", "--lock", "/dsv4.lock")
    ]
    assert "--for-release" not in plan_of("demo").materialize_command


def test_no_profile_serves_a_demo_hub_but_the_demo() -> None:
    assert {name: len(plan_of(name).hubs) for name in profile.names()} == {
        "w4a8-tp2": 0,
        "demo": 1,
        "w4a16-tp2": 0,
        "w4a8-tp2-baremetal": 0,
        "w4a8-tp4": 0,
    }


@pytest.mark.parametrize(
    ("name", "asked", "laid_over"),
    [
        ("w4a8-tp2", (), ()),
        ("w4a8-tp2", ("edge",), ("edge",)),
        ("w4a8-tp2", ("monitoring",), ("monitoring", "gpu-metrics")),
        ("w4a8-tp2", ("edge", "monitoring"), ("monitoring", "gpu-metrics", "edge")),
        ("demo", ("edge", "monitoring"), ("monitoring", "edge")),
    ],
)
def test_gpus_are_watched_where_there_are_any(name: str, asked: tuple[str, ...], laid_over: tuple[str, ...]) -> None:
    assert plan_of(name).laid_over(asked) == laid_over


def test_what_is_unlocked_is_named() -> None:
    assert plan_of("w4a8-tp2").unlocked == (
        "engine nightly: wheel sha256 unlocked",
        "repo canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP: file sizes and sha256 unlocked",
        "repo endnai/DeepSeek-V4-Flash-W4A8-FP8: revision of main unlocked",
    )
    assert plan_of("demo").unlocked == ()


def test_images_depend_on_pins_alone_and_on_every_one_of_them() -> None:
    same = {plan_of(name, "nightly").serve.reference for name in ("w4a8-tp2", "w4a16-tp2", "w4a8-tp4")}
    assert len(same) == 1
    other = replace(PINS.engines["nightly"], base=PINS.engines["nightly"].base.replace("a", "b"))
    moved = make_plan(replace(PINS, engines=PINS.engines | {"nightly": other}), profile.load("w4a8-tp2"), lock.Lock())
    assert moved.serve.reference not in same
    assert plan_of("w4a8-tp2", "v0.23.0").serve.reference.startswith("dsv4-stack/serve:v0.23.0-")


def test_contradictions_are_reported_at_once() -> None:
    demo = profile.load("demo")
    flags = demo.serve.flags | {"tensor-parallel-size": 2}
    wrong = replace(
        demo, checkpoint="w4a8", machine=replace(demo.machine, gpus=1), serve=replace(demo.serve, flags=flags)
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(PINS, wrong, lock.Lock())
    assert caught.value.message == (
        "profile demo contradicts itself:\n"
        "  serve.flags.tensor-parallel-size: is 2, but machine.gpus is 1\n"
        "  demo_hub: belongs to the seeded checkpoint, and only to it\n"
        "  engine: cpu does not go with machine.gpus = 1"
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ["--x"]),
        (False, []),
        ({}, []),
        (0, ["--x", "0"]),
        (0.9, ["--x", "0.9"]),
        ("a b", ["--x", "a b"]),
        ({"k": [1]}, ["--x", '{"k": [1]}']),
    ],
)
def test_flag_words(value: profile.Setting, words: list[str]) -> None:
    assert flag_words("x", value) == words
