"""The demo's repositories are pinned like any other: by the commit that their bytes have."""

from pathlib import Path

from dsv4_stack import assets, pins
from dsv4_stack.guest.demo import seed
from dsv4_stack.guest.demo.repo import Repos, revision_of


def test_the_pinned_revisions_are_those_of_the_seeded_bytes(tmp_path: Path) -> None:
    seed.write_repos(tmp_path)
    demo = pins.load(assets.PINS).checkpoints["demo"]
    assert demo.overlay is not None
    for repo in (demo.base, demo.overlay):
        assert revision_of(Repos(tmp_path).files(repo.repo)) == repo.revision
