"""What is likely to help, and the report that says so."""

from dataclasses import replace

import pytest

from dsv4_stack.guest.serving import remedies, report
from dsv4_stack.guest.serving.evidence import Evidence, Phase, Space
from dsv4_stack.guest.serving.processes import Process

GIB = 1 << 30
API = Process(pid=10, parent=1, name="vllm serve", state="S", read=0, resident=0)
RANK = Process(pid=11, parent=10, name="VLLM::Worker_TP0", state="R", read=0, resident=0)
GOOD = Evidence(
    is_up=False,
    processes=(API, RANK),
    stacks={},
    shm=Space(size=16 * GIB, free=15 * GIB, is_writable=True),
    caches=Space(size=100 * GIB, free=50 * GIB, is_writable=True),
    has_nvcc=True,
    topology="GPU0 GPU1\nX NV18",
    confidential="CC status: OFF",
    arguments=("vllm", "serve", "/weights", "--tensor-parallel-size", "2", "--disable-custom-all-reduce"),
    variables={"VLLM_ALLREDUCE_USE_SYMM_MEM": "0"},
)
ALLOWED = replace(GOOD, arguments=GOOD.arguments[:-1], variables={})


def stack(text: str) -> dict[str, str]:
    return {"VLLM::Worker_TP0 (11, R)": f'Thread 0x1 (most recent call first):\n  File "x.py", line 1 in {text}'}


def troubles(evidence: Evidence) -> list[str]:
    return [remedy.trouble.split(",")[0].split(" (")[0] for remedy in remedies.likely(evidence)]


def test_a_good_engine_has_none() -> None:
    assert troubles(GOOD) == []


@pytest.mark.parametrize(
    ("evidence", "first"),
    [
        (replace(ALLOWED, stacks=stack("custom_all_reduce")), "custom all-reduce waits for memory of another process"),
        (replace(ALLOWED, confidential="CC status: ON"), "custom all-reduce waits for memory of another process"),
        (replace(GOOD, variables={}, stacks=stack("symm_mem")), "all-reduce over symmetric memory is CUDA IPC too"),
        (replace(GOOD, variables={}, confidential="CC status: ON"), "all-reduce over symmetric memory is CUDA IPC too"),
        (replace(GOOD, shm=Space(size=64 << 20, free=64 << 20, is_writable=True)), "shared memory"),
        (replace(GOOD, shm=Space(size=16 * GIB, free=1 << 20, is_writable=True)), "shared memory"),
        (replace(GOOD, has_nvcc=False), "there is no nvcc"),
        (replace(GOOD, caches=Space(size=GIB, free=GIB, is_writable=False)), "the kernel caches cannot be written to"),
        (replace(GOOD, caches=Space(size=GIB, free=1000, is_writable=True)), "the volume of the kernel caches is full"),
        (replace(GOOD, processes=(API, replace(RANK, state="T"))), "a process of the engine was stopped by a signal"),
        (replace(GOOD, processes=(API, replace(RANK, state="D"))), "a process of the engine waits for a disk"),
        (replace(GOOD, stacks=stack("safetensors_weights_iterator")), "the weights are still being read"),
        (replace(GOOD, processes=(API, replace(RANK, name="nvcc -O3"))), "kernels are still being compiled"),
    ],
)
def test_each_trouble_is_told_from_what_is_seen(evidence: Evidence, first: str) -> None:
    assert troubles(evidence)[0] == first


def test_one_gpu_needs_no_all_reduce() -> None:
    one = replace(ALLOWED, arguments=("vllm", "serve"), confidential="CC status: ON")
    assert troubles(one) == []


def test_without_gpus_no_nvcc_is_missed() -> None:
    assert troubles(replace(GOOD, has_nvcc=False, topology="")) == []


@pytest.mark.parametrize(
    ("evidence", "phase"),
    [
        (GOOD, Phase.IMPORTS),
        (replace(GOOD, is_up=True, stacks=stack("load_weights")), Phase.SERVING),
        (replace(GOOD, stacks=stack("init_process_group")), Phase.NCCL),
        (replace(GOOD, stacks=stack("_rendezvous")), Phase.NCCL),
        (replace(GOOD, stacks=stack("load_weights")), Phase.WEIGHTS),
        (replace(GOOD, stacks=stack("capture_model")), Phase.WARM_UP),
        (replace(GOOD, stacks=stack("build_and_load")), Phase.KERNELS),
        (replace(GOOD, processes=(API, replace(RANK, name="cc1plus"))), Phase.KERNELS),
    ],
)
def test_the_phase_of_a_start(evidence: Evidence, phase: Phase) -> None:
    assert evidence.phase == phase


def test_the_whole_report() -> None:
    found = replace(
        ALLOWED, stacks=stack("custom_all_reduce"), shm=Space(size=64 << 20, free=32 << 20, is_writable=True)
    )
    assert list(report.lines(found)) == [
        "phase: NCCL",
        "processes: vllm serve (10, S), VLLM::Worker_TP0 (11, R)",
        "stack of VLLM::Worker_TP0 (11, R), one of 1 threads:",
        "  Thread 0x1 (most recent call first):",
        '    File "x.py", line 1 in custom_all_reduce',
        "shared memory: 32.0 MiB of 64.0 MiB free",
        "kernel caches: 50.0 GiB of 100.0 GiB free",
        "confidential computing: CC status: OFF",
        "topology: GPU0 GPU1",
        "topology: X NV18",
        "likely: custom all-reduce waits for memory of another process, which a confidential VM does not share",
        "  next: serve with --disable-custom-all-reduce, as the profile w4a8-tp2 does",
        "likely: shared memory (/dev/shm) is too small or full: ranks exchange requests and NCCL its buffers there",
        "  next: raise machine.shm_size in the profile; w4a8-tp2 has 16g",
    ]


def test_a_report_without_anything() -> None:
    bare = replace(
        GOOD,
        processes=(),
        topology="",
        confidential="",
        caches=Space(size=0, free=0, is_writable=False),
    )
    assert list(report.lines(bare)) == [
        "phase: imports",
        "processes: none",
        "stacks: none could be had",
        "shared memory: 15.0 GiB of 16.0 GiB free",
        "kernel caches: 0 bytes of 0 bytes free, not writable",
        "confidential computing: unknown, nvidia-smi does not say",
        "likely: the kernel caches cannot be written to, so every start compiles everything",
        "  next: let the stack set up its volume: dsv4 down, then dsv4 up",
    ]


def test_of_many_threads_the_main_one_is_shown() -> None:
    text = (
        "Thread 0x2 (most recent call first):\n  in sleep\n\nCurrent thread 0x1 (most recent call first):\n  in work\n"
    )
    found = list(report.lines(replace(GOOD, stacks={"x": text})))
    assert found[2:6] == [
        "stack of x, one of 2 threads:",
        "  Current thread 0x1 (most recent call first):",
        "    in work",
        "shared memory: 15.0 GiB of 16.0 GiB free",
    ]


def test_a_long_stack_is_cut_short() -> None:
    found = list(report.lines(replace(GOOD, stacks={"x": "line\n" * 100})))
    assert "  … 60 lines more" in found
    assert found[-1] == "likely: nothing that is known; please report this log"
