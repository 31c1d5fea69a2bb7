"""The NVIDIA driver: there, answering, and new enough for the CUDA of the engine's image."""

from collections.abc import Iterator
from typing import Final

from dsv4_stack import engine
from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.doctor.smi import Listing

SUBJECT: Final = "NVIDIA driver"
# vLLM's images are made of nvidia/cuda:13.0, and CUDA 13 comes with R580:
# https://github.com/vllm-project/vllm/blob/v0.23.0/docker/Dockerfile
# https://docs.nvidia.com/cuda/archive/13.0.0/cuda-toolkit-release-notes/index.html
MINIMUM: Final = 580
# From R535 on, data center GPUs may run it on the cuda-compat package that nvidia/cuda:13.0 brings. Not run by us:
# https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html
# https://github.com/dstackai/dstack/pull/4007
COMPATIBLE: Final = 535
INSTALL: Final = (
    "install the driver, R580 or newer: https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/; "
    "then see: nvidia-smi"
)


def findings(listing: Listing) -> Iterator[Finding]:
    if listing.problem:
        yield wrong(SUBJECT, listing.problem, INSTALL)
    elif listing.gpus:
        yield _version(listing.gpus[0].driver)
    else:
        yield warning(SUBJECT, "nvidia-smi answers and lists no GPU, so the version is not known", INSTALL)


def _version(version: str) -> Finding:
    branch = engine.version_tuple(version)[0]
    if branch >= MINIMUM:
        return ok(SUBJECT, version)
    found = f"{version or 'of no version'}, older than the R{MINIMUM} of the engine's CUDA 13"
    if branch >= COMPATIBLE:
        return warning(SUBJECT, f"{found}; the image's cuda-compat may bridge that, which we have not seen", INSTALL)
    return wrong(SUBJECT, found, INSTALL)
