"""Fixtures of `helpers.hub`, for `pytest_plugins`: nobody imports this."""

import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from dsv4_stack.guest import hub, listing
from dsv4_stack.guest.demo.server import DemoHub
from helpers.hub import BASE, OVERLAY, World, write_base, write_overlay

_ENVIRONMENT = [
    *("HF_TOKEN", "HF_TOKEN_FILE", "HF_TOKEN_PATH", "DSV4_DEBUG"),
    *("DSV4_EXTRA_CA", "DSV4_EXTRA_CA_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
]


@pytest.fixture
def offline_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own proxies, tokens and CAs."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline_environment: None) -> Iterator[World]:  # noqa: ARG001
    """A running Hub, and HF_ENDPOINT pointing to it."""
    root = tmp_path / "hub"
    write_base(root / BASE)
    write_overlay(root / OVERLAY)
    with DemoHub(root, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        # A process of its own for each listing is half a second; tests/process has them.
        monkeypatch.setattr(listing, "ask", lambda repo, revision, _timeout_s: hub.snapshot(repo, revision))
        monkeypatch.setattr(listing, "ATTEMPTS", 1)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield World(server=server, root=root, dest=tmp_path / "dest")
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()
