"""Release numbers and ranges: ordered as numbers, and a commit's version is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.patching.releases import Release, Span, parse

numbers = st.integers(min_value=0, max_value=200)
releases = st.builds(Release, numbers, numbers, numbers)


@given(releases)
def test_a_release_survives_its_text(release: Release) -> None:
    assert parse(str(release)) == release


@pytest.mark.parametrize(
    ("text", "release"),
    [("0.32.0+cpu", Release(0, 32, 0)), ("0.23.0.post1", Release(0, 23, 0)), ("10.9.8", Release(10, 9, 8))],
)
def test_another_build_of_a_release_is_that_release(text: str, release: Release) -> None:
    assert parse(text) == release


@pytest.mark.parametrize("text", ["", "0.23", "v0.23.0", "0.23.1rc1.dev901+g2f3f441f8", "0.23.0 "])
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert raised.value.message == f"{text!r} is no vLLM release"


def test_releases_are_ordered_as_numbers() -> None:
    assert sorted(map(parse, ["0.100.0", "0.9.0", "0.22.10", "0.22.9"])) == list(
        map(parse, ["0.9.0", "0.22.9", "0.22.10", "0.100.0"])
    )


@given(releases, releases, releases)
def test_a_span_has_its_first_and_not_its_end(since: Release, before: Release, release: Release) -> None:
    assert (release in Span(since=since, before=before)) == (since <= release < before)
    assert (release in Span(since=since)) == (since <= release)
