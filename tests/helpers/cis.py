"""Section 5 of the CIS Docker Benchmark (1.6.0), as docker-bench-security checks it: on what `docker inspect` says.

Left out: 5.2 and 5.21 to 5.23 where the daemon's own defaults hold (SELinux, seccomp, exec), 5.6 (ssh), 5.8 (ports that
are needed, which the tests of rendering hold), and 5.30 (user namespaces of the host).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Found = Mapping[str, Any]


def _host(found: Found, name: str) -> Any:  # noqa: ANN401
    return found["HostConfig"].get(name)


def _bindings(found: Found) -> list[dict[str, str]]:
    return [each for bound in (_host(found, "PortBindings") or {}).values() for each in bound]


def _sources(found: Found) -> list[str]:
    return [mount.get("Source", "") for mount in found["Mounts"] if mount["Type"] == "bind"]


SENSITIVE: Final = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")
# Each says whether it is fulfilled.
CHECKS: Final[dict[str, Callable[[Found], bool]]] = {
    "5.1 AppArmor profile": lambda it: bool(it.get("AppArmorProfile")),
    "5.3 capabilities": lambda it: _host(it, "CapDrop") == ["ALL"] and not _host(it, "CapAdd"),
    "5.4 privileged": lambda it: not _host(it, "Privileged"),
    "5.5 sensitive folders": lambda it: not set(_sources(it)) & set(SENSITIVE),
    "5.7 privileged ports": lambda it: all(int(each["HostPort"] or 0) >= 1024 for each in _bindings(it)),
    "5.9 host network": lambda it: _host(it, "NetworkMode") != "host",
    "5.10 memory limit": lambda it: bool(_host(it, "Memory")),
    "5.11 CPU shares": lambda it: bool(_host(it, "CpuShares") or _host(it, "NanoCpus")),
    "5.12 read-only root": lambda it: bool(_host(it, "ReadonlyRootfs")),
    "5.13 an interface of the host": lambda it: all(each["HostIp"] not in ("", "0.0.0.0") for each in _bindings(it)),  # noqa: S104
    "5.14 restarts at most 5 times": lambda it: _host(it, "RestartPolicy")["Name"] in ("", "no", "on-failure"),
    "5.15 host processes": lambda it: _host(it, "PidMode") != "host",
    "5.16 host IPC": lambda it: _host(it, "IpcMode") != "host",
    "5.17 host devices": lambda it: not _host(it, "Devices"),
    "5.19 shared mounts": lambda it: all(mount.get("Propagation") != "shared" for mount in it["Mounts"]),
    "5.20 host UTS": lambda it: _host(it, "UTSMode") != "host",
    "5.24 cgroup": lambda it: not _host(it, "CgroupParent"),
    "5.25 no new privileges": lambda it: "no-new-privileges:true" in (_host(it, "SecurityOpt") or []),
    "5.26 health check": lambda it: bool(it["Config"].get("Healthcheck")),
    "5.27 no `latest`": lambda it: not it["Config"]["Image"].endswith(":latest"),
    "5.28 limit of processes": lambda it: (_host(it, "PidsLimit") or 0) > 0,
    "5.29 default bridge": lambda it: _host(it, "NetworkMode") not in ("default", "bridge"),
    "5.31 Docker's socket": lambda it: not any("docker.sock" in source for source in _sources(it)),
    "4.1 a user": lambda it: it["Config"]["User"] not in ("", "root", "0", "0:0"),
}


def failed(found: Found) -> set[str]:
    """The numbers of the checks that a container does not fulfil."""
    return {name.split()[0] for name, check in CHECKS.items() if not check(found)}
