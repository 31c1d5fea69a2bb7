"""Our conversion as the real compressed-tensors library sees it, in the version that vLLM pins and the image has."""

import json
import subprocess

import pytest
from helpers.hub import CONFIG_BASE

from dsv4_stack.guest import convert

pytestmark = [pytest.mark.docker, pytest.mark.network]

PROGRAM = """
import json, sys
from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
config = QuantizationConfig.model_validate(json.load(sys.stdin)["quantization_config"])
experts = config.config_groups["group_1"]
preset = preset_name_to_scheme("W4AFP8", experts.targets)
fields = ("num_bits", "type", "strategy", "dynamic", "symmetric", "group_size")
print(json.dumps({
    "attention": config.config_groups["group_0"].input_activations.strategy,
    "same_as_preset": {
        part: all(getattr(getattr(experts, part), field) == getattr(getattr(preset, part), field) for field in fields)
        for part in ("weights", "input_activations")
    },
    "format": experts.format,
}))
"""


def validate(image: str, config: bytes) -> subprocess.CompletedProcess[bytes]:
    command = ["docker", "run", "--rm", "--interactive", "--entrypoint", "python3", image, "-c", PROGRAM]
    return subprocess.run(command, input=config, capture_output=True, check=False, timeout=120)


def test_the_library_takes_the_conversion_for_its_own_preset(cpu_image: str) -> None:
    _, converted = convert.convert(CONFIG_BASE.read_bytes(), "config.json")
    answer = validate(cpu_image, converted)
    assert answer.returncode == 0, answer.stderr.decode()
    assert json.loads(answer.stdout) == {
        "attention": "group",
        "same_as_preset": {"weights": True, "input_activations": True},
        "format": "pack-quantized",
    }


@pytest.mark.parametrize("change", [{"strategy": "channel"}, {"dynamic": False}, {"group_size": 128}, {"bits": 8}])
def test_the_library_refuses_another_scheme(cpu_image: str, change: dict[str, object]) -> None:
    config = json.loads(convert.convert(CONFIG_BASE.read_bytes(), "config.json")[1])
    config["quantization_config"]["config_groups"]["group_1"]["input_activations"] |= change
    answer = validate(cpu_image, json.dumps(config).encode())
    assert answer.returncode == 1
    assert b"pydantic_core._pydantic_core.ValidationError: " in answer.stderr
