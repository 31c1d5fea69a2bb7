"""How containers get at the GPUs: the NVIDIA container toolkit's runtime or hook, or a CDI specification."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dsv4_stack import engine
from dsv4_stack.doctor.finding import Finding, ok, warning, wrong
from dsv4_stack.doctor.tools import Info

SUBJECT: Final = "GPUs in containers"
KIND: Final = "nvidia.com/gpu"
# https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/cdi-support.html
CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
# For `driver: nvidia` of a compose file Docker needs this on its PATH when it starts, or from 29.2 on CDI devices:
# https://github.com/moby/moby/blob/v28.2.2/daemon/nvidia_linux.go, https://github.com/moby/moby/pull/50228
HOOK: Final = "nvidia-container-runtime-hook"
CDI_SINCE: Final = (29, 2)
_CONFIGURE: Final = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
_INSTALL: Final = (
    "install it: https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html; then: "
)


def findings(info: Info) -> Iterator[Finding]:
    if "nvidia" in (info.get("Runtimes") or {}):
        yield ok(SUBJECT, "Docker knows the runtime nvidia")
    elif devices := _devices(info):
        yield _of_devices(len(devices), str(info.get("ServerVersion")))
    elif shutil.which(HOOK):
        yield warning(SUBJECT, f"{HOOK} is there, but Docker knows no runtime nvidia", _mend())
    elif spec := _spec():
        yield warning(SUBJECT, f"{spec} is there, but Docker lists none of its devices", _mend())
    else:
        yield wrong(SUBJECT, "Docker knows no runtime nvidia, and there is no CDI specification", _mend())


def _of_devices(number: int, version: str) -> Finding:
    listed = f"Docker lists {number} CDI devices {KIND}"
    if engine.version_tuple(version) >= CDI_SINCE:
        return ok(SUBJECT, listed)
    return warning(SUBJECT, f"{listed}, but before 29.2 it takes `driver: nvidia` from the runtime's hook", _mend())


def _devices(info: Info) -> list[str]:
    """`docker info` lists them from API 1.50 on: https://docs.docker.com/reference/api/engine/version-history/."""
    named = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or ()]
    return [name for name in named if name.startswith(f"{KIND}=")]


def _spec() -> Path | None:
    """A CDI specification of NVIDIA GPUs that can be read."""
    files = [path for folder in CDI_FOLDERS for suffix in ("json", "yaml") for path in folder.glob(f"*.{suffix}")]
    return next((path for path in sorted(files) if KIND in _text(path)), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mend() -> str:
    return _CONFIGURE if shutil.which("nvidia-ctk") else _INSTALL + _CONFIGURE
