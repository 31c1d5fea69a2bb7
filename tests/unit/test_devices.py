"""What nvidia-smi says of each GPU, with a command of that name that says what a test wants."""

import os
from pathlib import Path

import pytest

from dsv4_stack.guest.serving import devices
from dsv4_stack.guest.serving.devices import Device

FIRST = Device(index=0, power_w=312.5, used_mib=75_012.0, total_mib=143_771.0)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return script


def say(script: Path, text: str, code: int = 0) -> None:
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
    script.chmod(0o755)


def test_each_line_is_a_gpu(smi: Path) -> None:
    say(smi, "0, 312.50, 75012, 143771\n1, [N/A], [Insufficient Permissions], 143771\n")
    assert devices.look() == [FIRST, Device(index=1, power_w=None, used_mib=None, total_mib=143_771.0)]


def test_what_is_no_gpu_is_passed_over() -> None:
    assert devices.of_csv("No devices were found\n\n0, 312.50, 75012, 143771\n") == [FIRST]


def test_a_driver_that_does_not_answer_has_none(smi: Path) -> None:
    say(smi, "0, 312.50, 75012, 143771\n", code=9)
    assert devices.look() == []


def test_without_nvidia_smi_there_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.look() == []
