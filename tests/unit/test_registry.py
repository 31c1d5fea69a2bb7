"""The digest behind a tag: what is asked of a registry, with and without a token."""

import pytest
from helpers.file_server import serving

from dsv4_stack import registry
from dsv4_stack.errors import NetworkError, NotFoundError

DIGEST = "sha256:" + "d" * 64


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("python:3.12", "https://registry-1.docker.io/v2/library/python/manifests/3.12"),
        ("vllm/vllm-openai:v0.33.0", "https://registry-1.docker.io/v2/vllm/vllm-openai/manifests/v0.33.0"),
        ("ghcr.io/a/b/c:1", "https://ghcr.io/v2/a/b/c/manifests/1"),
        ("127.0.0.1:5000/a:1", "http://127.0.0.1:5000/v2/a/manifests/1"),
    ],
)
def test_names_are_read_as_docker_reads_them(image: str, url: str) -> None:
    assert registry.manifest_url(image) == url


def test_a_token_is_asked_for_where_the_registry_wants_one() -> None:
    with serving() as site:
        site.digests["org/name:tag"] = DIGEST
        assert registry.digest(f"{site.host}/org/name:tag") == DIGEST
        assert site.requests == [
            "GET /v2/org/name/manifests/tag",
            "GET /token?service=registry&scope=repository%3Aorg%2Fname%3Apull",
            "HEAD /v2/org/name/manifests/tag",
        ]


def test_a_tag_that_is_not_there() -> None:
    with serving() as site, pytest.raises(NotFoundError):
        registry.digest(f"{site.host}/org/name:tag")


def test_a_registry_that_names_no_digest() -> None:
    with serving() as site:
        site.files["/v2/org/name/manifests/tag"] = b"{}"
        site.digests["org/name:tag"] = "sha256:short"
        with pytest.raises(NetworkError) as raised:
            registry.digest(f"{site.host}/org/name:tag")
        assert str(raised.value) == (
            f"{site.url}/v2/org/name/manifests/tag: the registry does not say its digest\n"
            "  next: pin the image by digest in pins.toml"
        )
