"""A patched vLLM with one patch left out: that patch's files as they were published."""

from pathlib import Path

from dsv4_stack.guest.patching import diff
from dsv4_stack.guest.patching.releases import Release
from dsv4_stack.guest.patching.series import Patch


def publish(tree: Path, patch: Patch, release: Release, target: Path) -> Path:
    """Write the files of `tree` that the patch changes to `target`, without it. Raises PatchError. Returns `target`."""
    for file in patch.layout(release).files:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(diff.apply((tree / file.path).read_bytes(), file.reversed()).data)
    return target
