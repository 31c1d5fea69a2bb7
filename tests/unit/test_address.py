"""Where a file's bytes are, and whom the token is shown to."""

import pytest

from dsv4_stack.guest.download.address import Address

URL = "https://hub.example/org/base/resolve/main/f"
PLAIN = {"X-Of": "us"}
HEADERS = {"Authorization": "Bearer hf_x", **PLAIN}


def address(url: str = URL) -> Address:
    return Address(url, HEADERS)


def test_at_first_it_is_the_hubs_own() -> None:
    assert address().current() == (URL, HEADERS, False)


@pytest.mark.parametrize(
    ("location", "url", "headers"),
    [
        ("https://cdn.example/x?signature=s", "https://cdn.example/x?signature=s", PLAIN),
        ("https://hub.example/cdn/x", "https://hub.example/cdn/x", HEADERS),
        ("/cdn/x?y=z", "https://hub.example/cdn/x?y=z", HEADERS),
        ("g", "https://hub.example/org/base/resolve/main/g", HEADERS),
        ("//cdn.example/x", "https://cdn.example/x", PLAIN),
        # Neither is the host that the token is for.
        ("http://hub.example/x", "http://hub.example/x", PLAIN),
        ("https://hub.example:8443/x", "https://hub.example:8443/x", PLAIN),
        ("https://hub.example.evil/x", "https://hub.example.evil/x", PLAIN),
        ("https://hub.example@evil/x", "https://hub.example@evil/x", PLAIN),
    ],
)
def test_a_redirect_is_followed_and_the_token_stays(location: str, url: str, headers: dict[str, str]) -> None:
    found = address()
    found.follow(URL, location)
    assert found.current() == (url, headers, True)


@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION"])
def test_a_token_stays_however_its_header_is_written(name: str) -> None:
    found = Address(URL, {name: "Bearer hf_x"})
    found.follow(URL, "https://cdn.example/x")
    assert found.current()[1] == {}


def test_a_redirect_of_a_redirect_is_followed_from_there() -> None:
    found = address()
    found.follow(URL, "https://cdn.example/a/b")
    found.follow("https://cdn.example/a/b", "c")
    assert found.current() == ("https://cdn.example/a/c", PLAIN, True)
    found.follow("https://cdn.example/a/c", URL)
    assert found.current() == (URL, HEADERS, True)


def test_only_the_one_that_was_refused_is_forgotten() -> None:
    """Another connection may have been told of a newer one meanwhile."""
    found = address()
    found.follow(URL, "https://cdn.example/old")
    found.follow(URL, "https://cdn.example/new")
    found.forget("https://cdn.example/old")
    assert found.current()[0] == "https://cdn.example/new"
    found.forget(URL)
    assert found.current()[0] == "https://cdn.example/new"
    found.forget("https://cdn.example/new")
    assert found.current() == (URL, HEADERS, False)


@pytest.mark.parametrize(
    "location", ["http://[::1", "http:///x", "https://h:99999/", "https://h:nine/", "https://h\uff0fx/"]
)
def test_what_is_no_address_is_not_followed(location: str) -> None:
    found = address()
    with pytest.raises(ValueError, match=r"."):
        found.follow(URL, location)
    assert found.current() == (URL, HEADERS, False)
