"""The engine that is to load a checkpoint."""

from dataclasses import dataclass

from dsv4_stack.guest.checkpoint.manifest import loader_name
from dsv4_stack.guest.patching.releases import Release


@dataclass(frozen=True, kw_only=True)
class Loader:
    """vLLM, or the release that a commit is like, on `ranks` GPUs (tensor parallel), with the MTP draft or without."""

    release: Release
    ranks: int
    mtp: bool = False

    def __str__(self) -> str:
        return loader_name(str(self.release), self.ranks, mtp=self.mtp)
