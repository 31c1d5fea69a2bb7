"""Images that stand in for vllm/vllm-openai, which no test can pull everywhere: 20 GB."""

import os
import shutil
from pathlib import Path
from typing import Final

from helpers.images import build_image
from helpers.process import ROOT
from helpers.wheels import tree

ENGINE: Final = ROOT / "tests/standin/vllm.py"
_DOCKERFILE: Final = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN --mount=type=bind,target=/context \\
    site=$(python3 -c 'import site; print(site.getsitepackages()[0])') && mkdir -p "$site" && \\
    cp -r /context/site/. "$site" && python3 -m compileall -q "$site/vllm/models/deepseek_v4"
COPY --chmod=0755 vllm /usr/local/bin/vllm
"""


def build_standin(base: str, release: str, context: Path) -> str:
    """Debian with the Python files of a real vLLM wheel, and the engine that misbehaves on demand as `vllm`."""
    tag = f"dsv4-test/vllm-{release}:{os.getpid()}"
    shutil.copytree(tree(release), context / "site")
    shutil.copyfile(ENGINE, context / "vllm")
    (context / "Dockerfile").write_text(_DOCKERFILE)
    build_image(str(context), tag=tag, args={"BASE_IMAGE": base})
    return tag
