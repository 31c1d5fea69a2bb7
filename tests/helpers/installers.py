"""The two installers that a base image may have, with a folder of wheels as their only index."""

import shutil
from pathlib import Path
from typing import Final

from helpers.process import UV

INSTRUCTIONS: Final = {
    "pip": """\
COPY wheels /wheels
RUN python3 -m venv /opt/base
ENV PATH=/opt/base/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
""",
    # As in vLLM's images: no pip, and the system's Python.
    "uv": """\
COPY wheels /wheels
COPY uv /usr/local/bin/uv
RUN mkdir /etc/uv && printf 'no-index = true\\nfind-links = ["/wheels"]\\n' >/etc/uv/uv.toml
ENV UV_SYSTEM_PYTHON=1 UV_BREAK_SYSTEM_PACKAGES=1
""",
}
INSTALL: Final = {"pip": "pip install --quiet", "uv": "uv pip install --quiet"}


def write_dockerfile(context: Path, installer: str, *commands: str) -> None:
    """A base with the installer and the wheels of `context`/wheels, of which each command has installed some."""
    shutil.copyfile(UV, context / "uv")
    (context / "uv").chmod(0o755)
    head = f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\n{INSTRUCTIONS[installer]}"
    lines = [f"RUN {INSTALL[installer]} {words}\n" for words in commands]
    (context / "Dockerfile").write_text(head + "".join(lines))
