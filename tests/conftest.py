"""Containers, downloads and GPUs are opted into, never detected."""

import hypothesis
import pytest

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

OPTIONS = {"docker": "--run-docker", "network": "--run-network", "gpu": "--run-gpu"}


def pytest_addoption(parser: pytest.Parser) -> None:
    for marker, option in OPTIONS.items():
        parser.addoption(option, action="store_true", help=f"run the tests marked {marker}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker, option in OPTIONS.items():
        if config.getoption(option):
            continue
        skip = pytest.mark.skip(reason=f"need {option} option to run")
        for item in items:
            if marker in item.keywords:
                item.add_marker(skip)
