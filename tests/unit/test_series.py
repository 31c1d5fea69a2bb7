"""Patch files: header and diff, and the series that ships."""

from pathlib import Path

import pytest
from helpers.vllm_tree import SERIES
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import NotFoundError, PatchError
from dsv4_stack.guest.patching import series
from dsv4_stack.guest.patching.diff import FileDiff, Hunk
from dsv4_stack.guest.patching.effects import Effect
from dsv4_stack.guest.patching.releases import Release, Span
from dsv4_stack.guest.patching.series import Layout, Patch

HEADER = """\
Subject: Do it
Fails-without: it ends in
 `KeyError: 'x'`,
\tat once
Upstream: https://example.org/1
Since: 0.22.0
First-release: 0.27.0
Drop-when: never
Effect: o-proj-scale-name
"""
BODY = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n"
FILES = (FileDiff(path="f", hunks=(Hunk(line=1, old=(b"x\n",), new=(b"y\n",), leading=0, trailing=0),)),)
SPAN = Span(since=Release(0, 22, 0), before=Release(0, 27, 0))
PARSED = Patch(
    name="0001-it",
    subject="Do it",
    fails_without="it ends in `KeyError: 'x'`, at once",
    upstream="https://example.org/1",
    span=SPAN,
    drop_when="never",
    effect=Effect.O_PROJ_SCALE_NAME,
    layouts=(Layout(span=SPAN, files=FILES, text=BODY),),
)


def test_parses_header_and_diff() -> None:
    assert series.parse("0001-it", f"{HEADER}---\n{BODY}".encode()) == PARSED


@given(st.permutations(HEADER.replace("\n ", "\n\0").replace("\n\t", "\n\1").splitlines()))
def test_fields_stand_in_any_order(lines: list[str]) -> None:
    # \0 and \1 mark what continues a line, which moves with the line it continues.
    fields = [line for line in lines if line[0] not in "\0\1"]
    at = next(number for number, line in enumerate(fields) if line.startswith("Fails"))
    fields[at] += "\n `KeyError: 'x'`,\n\tat once"
    text = "\n".join(fields) + f"\n---\n{BODY}"
    assert series.parse("0001-it", text.encode()) == PARSED


def test_a_layout_reaches_to_the_next_and_the_last_to_the_end() -> None:
    other = BODY.replace("+y", "+z")
    patch = series.parse("0001-it", f"{HEADER}---\nLayout: 0.22.0\n{BODY}Layout: 0.24.0\n{other}".encode())
    assert [(str(layout.span), layout.text) for layout in patch.layouts] == [
        ("0.22.0 until before 0.24.0", BODY),
        ("0.24.0 until before 0.27.0", other),
    ]
    texts = [patch.layout(Release(0, minor, 1)).text for minor in range(22, 27)]
    assert texts == [BODY, BODY, other, other, other]
    with pytest.raises(PatchError) as raised:
        patch.layout(Release(0, 27, 0))
    assert raised.value.message == "0001-it: is made for 0.22.0 until before 0.27.0, not for 0.27.0"


def test_a_patch_without_an_end_is_for_every_later_release() -> None:
    patch = series.parse("0001-it", f"{HEADER.replace('0.27.0', 'none')}---\n{BODY}".encode())
    assert (patch.first_release, str(patch.span)) == ("none", "0.22.0 and later")
    assert series.needed([patch, PARSED], Release(0, 27, 0)) == (patch,)
    assert series.needed([patch, PARSED], Release(0, 21, 9)) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + BODY, "0001-it: no line '---' ends its header"),
        (f"{HEADER}Effect: o-proj-scale-name\n---\n{BODY}", "0001-it: Effect: unknown or repeated in its header"),
        (f"{HEADER}Author: me\n---\n{BODY}", "0001-it: Author: unknown or repeated in its header"),
        (
            f"Subject: Do it\nUpstream:\n---\n{BODY}",
            "0001-it: its header lacks Fails-without, Upstream, Since, First-release, ",
        ),
        (f"Do it\n---\n{BODY}", "0001-it: 'Do it' is no header field"),
        (f"{HEADER}---\n", "0001-it: holds no diff"),
        (f"{HEADER.replace('o-proj', 'p-proj')}---\n{BODY}", "0001-it: there is no effect 'p-proj-scale-name'"),
        (f"{HEADER.replace('0.22.0', '0.22')}---\n{BODY}", "0001-it: '0.22' is no vLLM release"),
        (
            f"{HEADER.replace('0.27.0', '0.22.0')}---\n{BODY}",
            "0001-it: Since: 0.22.0 is not before First-release: 0.22.0",
        ),
        *(
            (
                f"{HEADER}---\n" + "".join(f"{line}\n{BODY}" for line in lines),
                "0001-it: its layouts do not go through 0.22.0 until before 0.27.0 in order",
            )
            for lines in (
                ["Layout: 0.23.0"],
                ["Layout: 0.22.0", "Layout: 0.27.0"],
                ["Layout: 0.22.0", "Layout: 0.25.0", "Layout: 0.24.0"],
                ["Layout: 0.22.0", "Layout: 0.22.0"],
            )
        ),
        (
            f"{HEADER}---\n{BODY}Layout: 0.22.0\n{BODY}",
            "0001-it: its layouts do not go through 0.22.0 until before 0.27.0 in order",
        ),
        (f"{HEADER}---\nLayout: 0.22.0\n", "0001-it: holds no diff"),
    ],
)
def test_rejects_malformed_patches(text: str, message: str) -> None:
    with pytest.raises(PatchError) as raised:
        series.parse("0001-it", text.encode())
    assert raised.value.message == (f"{message}Drop-when, Effect" if message.endswith(", ") else message)


def test_loads_all_sorted_or_the_named_in_order(tmp_path: Path) -> None:
    for name in ("0002-b", "0001-a", "0003-c"):
        (tmp_path / f"{name}.patch").write_text(f"{HEADER}---\n{BODY}")
    (tmp_path / "README").write_text("no patch")
    assert [patch.name for patch in series.load(tmp_path)] == ["0001-a", "0002-b", "0003-c"]
    assert [patch.name for patch in series.load(tmp_path, ["0003-c", "0001-a.patch"])] == ["0003-c", "0001-a"]


def test_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as raised:
        series.load(tmp_path / "none")
    assert str(raised.value) == f"there is no patch series at {tmp_path}/none\n  next: give its directory with --series"
    (tmp_path / "0001-a.patch").write_text(f"{HEADER}---\n{BODY}")
    with pytest.raises(NotFoundError) as raised:
        series.load(tmp_path, ["0001-a", "0002-b", "0003-c"])
    assert str(raised.value) == f"{tmp_path} holds no 0002-b.patch, 0003-c.patch\n  next: choose from: 0001-a"


def test_reports_all_malformed_patches_at_once(tmp_path: Path) -> None:
    (tmp_path / "0001-a.patch").write_text("")
    (tmp_path / "0002-b.patch").write_text(f"{HEADER}---\n{BODY}")
    (tmp_path / "0003-c.patch").write_text(f"{HEADER}---\n")
    with pytest.raises(PatchError) as raised:
        series.load(tmp_path)
    assert raised.value.message == "0001-a: no line '---' ends its header\n0003-c: holds no diff"


def test_the_series_that_ships() -> None:
    patches = series.load(SERIES)
    assert [(patch.name, patch.effect.value, str(patch.span)) for patch in patches] == [
        ("0001-packed-modules-mapping", "packed-modules-mapping", "0.22.0 until before 0.29.0"),
        ("0002-packed-modules-mapping-mtp", "packed-modules-mapping-mtp", "0.22.0 until before 0.29.0"),
        ("0003-hash-moe-layer-type", "hash-moe-layer-type", "0.22.0 until before 0.33.0"),
        ("0004-o-proj-scale-name", "o-proj-scale-name", "0.22.0 until before 0.27.0"),
        ("0005-w4a8-swiglu-clamp", "w4a8-swiglu-clamp", "0.22.0 until before 0.28.0"),
    ]
    assert {patch.effect for patch in patches} == set(Effect)
    # Each patch has a file of its own, so that any of them can be dropped without making the others again.
    for release in (Release(0, 22, 1), Release(0, 23, 0)):
        files = [file.path for patch in patches for file in patch.layout(release).files]
        assert len(files) == len(set(files)) == len(patches)
    assert all("https://github.com/vllm-project/vllm" in patch.upstream for patch in patches)
