"""`docker compose up` with the committed file alone: no Python, no lock, nothing but Docker."""

import json
from pathlib import Path

import pytest
import requests
from helpers.process import succeed
from pytest_docker.plugin import Services

pytestmark = pytest.mark.docker

URL = "http://127.0.0.1:8001"
CACHE = "dsv4-cache-cpu-cpu"


def answers() -> bool:
    try:
        return requests.get(f"{URL}/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def stack(docker_services: Services) -> str:
    docker_services.wait_until_responsive(check=answers, timeout=600, pause=1)
    return URL


def volumes() -> list[str]:
    return succeed("docker", "volume", "ls", "--quiet", timeout=30).stdout.split()


def test_it_serves_the_demo_model(stack: str) -> None:
    body = {"model": "tiny-counter", "prompt": "xyz", "max_tokens": 4, "temperature": 0}
    answer = requests.post(f"{stack}/v1/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["text"] == "abcd"


def test_down_with_volumes_leaves_the_weights(stack: str, weights: Path) -> None:
    assert stack
    assert CACHE in volumes()
    command = ["docker", "compose", "-p", "dsv4-plain", "-f", "compose/compose.demo.yaml"]
    succeed(*command, "down", "--volumes", timeout=120)
    assert CACHE not in volumes()
    manifest = json.loads((weights / ".dsv4/manifest.json").read_text())
    assert all((weights / path).stat().st_size == entry["size"] for path, entry in manifest["files"].items())
