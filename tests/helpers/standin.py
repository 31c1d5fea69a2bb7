"""Images that stand in for vllm/vllm-openai, which no test can pull everywhere: 20 GB."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from helpers.images import build_image, remove_image
from helpers.process import ROOT
from helpers.wheels import tree

ENGINE: Final = ROOT / "tests/standin/vllm.py"
# In a shell of the image.
EFFECTS: Final = "PYTHONPATH=/opt/dsv4 python3 -m dsv4_stack.guest patches effects --series /opt/dsv4/patches"
_DOCKERFILE: Final = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN --mount=type=bind,target=/context \\
    site=$(python3 -c 'import site; print(site.getsitepackages()[0])') && mkdir -p "$site" && \\
    cp -r /context/site/. "$site" && python3 -m compileall -q "$site/vllm/models/deepseek_v4"
COPY --chmod=0755 vllm /usr/local/bin/vllm
"""


@contextmanager
def serve_image(base: str, release: str, context: Path) -> Iterator[str]:
    """The real serve image, as it is built for that release, over an engine that misbehaves on demand."""
    under = build_standin(base, release, context)
    tag = f"dsv4-test/standin-serve-{release}:{os.getpid()}"
    arguments, contexts = {"BASE_IMAGE": under}, {"guest": "deploy/dsv4_stack"}
    try:
        build_image("docker/serve", tag=tag, dockerfile=f"Dockerfile.v{release}", args=arguments, contexts=contexts)
        yield tag
    finally:
        remove_image(tag)
        remove_image(under)


def build_standin(base: str, release: str, context: Path) -> str:
    """Debian with the Python files of a real vLLM wheel, and the engine that misbehaves on demand as `vllm`."""
    tag = f"dsv4-test/vllm-{release}:{os.getpid()}"
    shutil.copytree(tree(release), context / "site")
    shutil.copyfile(ENGINE, context / "vllm")
    (context / "Dockerfile").write_text(_DOCKERFILE)
    build_image(str(context), tag=tag, args={"BASE_IMAGE": base})
    return tag
