"""The engine that is to load a checkpoint. Imports little, for it is named at every start."""

from dataclasses import dataclass

from dsv4_stack.guest.patching.releases import Release


@dataclass(frozen=True, kw_only=True)
class Loader:
    """vLLM, or the release that a commit is like, on `ranks` GPUs (tensor parallel), with the MTP draft or without."""

    release: Release
    ranks: int
    mtp: bool = False

    def __str__(self) -> str:
        return f"vLLM {self.release} on {self.ranks} GPUs{', with the MTP draft' if self.mtp else ''}"
