"""Compiled kernels carried in real containers: onto a machine that has neither the image nor the volume, and nothing
but the archive's files into a volume that is used by nobody; from anything else the old kernels stay as they were."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.images import remove_image
from helpers.process import ROOT, run, succeed
from helpers.wait import wait_until

from dsv4_stack.guest import caches, stage

pytestmark = pytest.mark.docker

# Of a GPU that there is not, so that the volume is nobody's.
PROFILE = 'extends = "demo"\n[machine]\ncompute_capability = "0.0"\n'
VOLUME = "dsv4-cache-cpu-sm00"
LABEL = f"{VOLUME}, vLLM 0.32.0"
OLD = {"triton/a/kernel.cubin": "old", "triton/mine.cubin": "old"}
NEW = {"triton/a/kernel.cubin": "new", "vllm/cache/b.so": "new"}


@dataclass(frozen=True)
class Machine:
    """One on which nothing was built yet: a copy of the checkout whose init image has a name of its own."""

    root: Path
    env: dict[str, str]

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "dsv4_stack", *map(str, words), "--profile", str(self.root / "fresh.toml")]

    def dsv4(self, *words: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
        done = run(*self.command(*words), timeout=900, env=self.env | (env or {}), cwd=self.root)
        return done.returncode, done.stderr

    @property
    def image(self) -> str:
        text = (self.root / "state/dsv4/dsv4-fresh/compose/compose.yaml").read_text()
        return text.partition("x-init: &init\n  image: ")[2].partition("\n")[0]

    def inside(self, script: str, *words: str) -> str:
        """What a shell says in a container that has the volume."""
        command = ("docker", "run", "--rm", "--volume", f"{VOLUME}:/cache", "--network", "none", *words)
        return succeed(*command, "--entrypoint", "sh", self.image, "-c", script, timeout=60).stdout

    def held(self) -> dict[str, str]:
        """Every file of the volume, and what it says."""
        listed = self.inside("cd /cache && find . -type f -exec sh -c 'echo ${1#./} $(cat $1)' _ {} ';'")
        return {name: text for name, _, text in (line.partition(" ") for line in listed.splitlines())}

    def fill(self, files: dict[str, str]) -> None:
        lines = [f"mkdir -p $(dirname /cache/{name}); printf {text} >/cache/{name}" for name, text in files.items()]
        self.inside("; ".join(lines))


@pytest.fixture(scope="module")
def machine(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    root = tmp_path_factory.mktemp("machine")
    for name in ("deploy", "docker", "compose"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copyfile(ROOT / "dsv4.lock", root / "dsv4.lock")
    with (root / "deploy/dsv4_stack/guest/__init__.py").open("a") as file:
        file.write(f"# {root}\n")
    (root / "fresh.toml").write_text(PROFILE)
    env = {"PYTHONPATH": str(root / "deploy"), "XDG_STATE_HOME": str(root / "state"), "DSV4_INIT_BASE": base}
    found = Machine(root=root, env=env)
    yield found
    run("docker", "volume", "rm", "--force", VOLUME, timeout=30)
    if (root / "state").is_dir():
        remove_image(found.image)


@pytest.fixture
def fresh(machine: Machine) -> Machine:
    run("docker", "volume", "rm", "--force", VOLUME, timeout=30)
    return machine


@pytest.fixture
def warm(fresh: Machine, archive: Path) -> Machine:
    """With an image, and with kernels of its own."""
    assert fresh.dsv4("warm", "--import", archive)[0] == 0
    succeed("docker", "volume", "rm", VOLUME, timeout=30)
    fresh.fill(OLD)
    return fresh


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return packed(tmp_path, NEW)


def packed(folder: Path, files: dict[str, str], label: str = LABEL) -> Path:
    for name, text in files.items():
        (folder / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cache" / name).write_text(text)
    out = io.BytesIO()
    caches.pack(folder / "cache", label, out)
    (folder / "kernels.tar.gz").write_bytes(out.getvalue())
    return folder / "kernels.tar.gz"


def volumes() -> list[str]:
    return succeed("docker", "volume", "ls", "--quiet", timeout=30).stdout.split()


def test_a_machine_without_image_and_volume_takes_them(fresh: Machine, archive: Path) -> None:
    code, err = fresh.dsv4("warm", "--import", archive)
    assert code == 0, err
    assert f"build: {fresh.image}\n" in err
    assert "caches: unpacked 2 files, 6 bytes\n" in err
    assert err.endswith(f"warm: {VOLUME} has the kernels of {archive}\n")
    assert fresh.held() == NEW
    # A second time there is nothing to build.
    code, err = fresh.dsv4("warm", "--import", archive)
    assert (code, err.count("build")) == (0, 0)


def test_they_are_the_users_that_the_engine_runs_as(fresh: Machine, archive: Path) -> None:
    show = "cd /cache && find . -exec stat -c '%n %u:%g %a' {} + | sort"
    assert fresh.dsv4("warm", "--import", archive)[0] == 0
    assert fresh.inside(show).splitlines() == [
        ". 10001:10001 755",
        "./triton 10001:10001 755",
        "./triton/a 10001:10001 755",
        "./triton/a/kernel.cubin 10001:10001 644",
        "./vllm 10001:10001 755",
        "./vllm/cache 10001:10001 755",
        "./vllm/cache/b.so 10001:10001 644",
    ]
    user = ("--user", "10001:10001", "--cap-drop", "ALL")
    assert fresh.inside("cd /cache && echo more >triton/a/more && mkdir other && cat vllm/cache/b.so", *user) == "new"
    assert fresh.dsv4("warm", "--import", archive, env={"DSV4_UID": "1234", "DSV4_GID": "5678"})[0] == 0
    assert {line.split()[1] for line in fresh.inside(show).splitlines()} == {"1234:5678", "10001:10001"}
    assert "./vllm/cache 1234:5678 755\n./vllm/cache/b.so 1234:5678 644\n" in fresh.inside(show)


def test_compose_takes_the_volume_as_its_own(fresh: Machine, archive: Path) -> None:
    assert fresh.dsv4("warm", "--import", archive)[0] == 0
    file = fresh.root / "state/dsv4/dsv4-fresh/compose/compose.yaml"
    compose = ("docker", "compose", "--file", file)
    try:
        done = succeed(*compose, "run", "--rm", "--no-deps", "prepare", timeout=60, env={"DSV4_WEIGHTS_DIR": "/tmp"})  # noqa: S108
        assert "external" not in done.stderr
    finally:
        succeed(*compose, "down", timeout=60)
    assert fresh.held() == NEW


def test_what_is_exported_here_comes_in_there(warm: Machine, tmp_path: Path) -> None:
    archive = tmp_path / "mine.tar.gz"
    code, err = warm.dsv4("warm", "--export", archive)
    assert code == 0, err
    assert err.endswith(f"warm: {archive} holds the kernels of {LABEL}\n")
    succeed("docker", "volume", "rm", VOLUME, timeout=30)
    assert warm.dsv4("warm", "--import", archive)[0] == 0
    assert warm.held() == OLD


def test_a_bad_archive_changes_nothing(warm: Machine, tmp_path: Path, archive: Path) -> None:
    whole = archive.read_bytes()
    (tmp_path / "other").mkdir()
    bad = {
        "this is no archive of kernel caches: Compressed file ended": whole[:-4],
        "this is no archive of kernel caches: ": whole[: len(whole) // 2],
        "these kernels are for dsv4-cache-cpu-cpu, vLLM 0.32.0, and": packed(
            tmp_path / "other", NEW, "dsv4-cache-cpu-cpu, vLLM 0.32.0"
        ).read_bytes(),
    }
    for reason, content in bad.items():
        archive.write_bytes(content)
        code, err = warm.dsv4("warm", "--import", archive)
        assert (code, err.startswith(f"error: {reason}")) == (6, True), err
        assert warm.held() == OLD
    assert warm.inside("ls -A /cache") == "triton\n"


def test_a_bad_archive_leaves_no_volume_that_was_not_there(fresh: Machine, archive: Path) -> None:
    archive.write_bytes(b"no archive")
    assert fresh.dsv4("warm", "--import", archive)[0] == 6
    assert VOLUME not in volumes()


def test_an_import_that_is_killed_changes_nothing_and_the_next_clears_up(warm: Machine, tmp_path: Path) -> None:
    files = NEW | {f"large/{number}": os.urandom(100_000).hex() for number in range(10)}
    whole = packed(tmp_path, files).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = warm.command("warm", "--import", pipe)
    with (
        subprocess.Popen(words, env=os.environ | warm.env, stderr=subprocess.PIPE) as importing,
        pipe.open("wb") as half,
    ):
        half.write(whole[: len(whole) // 2])
        half.flush()
        held = ("docker", "ps", "--quiet", "--filter", f"volume={VOLUME}")
        assert wait_until(lambda: bool(succeed(*held, timeout=30).stdout), timeout_s=120)
        assert wait_until(lambda: stage.NAME in warm.inside("ls -A /cache"), timeout_s=120)
        container = succeed("docker", "ps", "--filter", f"volume={VOLUME}", "--format", "{{.Names}}", timeout=30)
        name = container.stdout.strip()
        # Meanwhile it is not to be disturbed.
        assert warm.dsv4("warm", "--import", tmp_path / "kernels.tar.gz") == (
            2,
            f"error: the volume {VOLUME} is used by {name} (running)\n  next: run: docker stop {name}\n",
        )
        succeed("docker", "kill", name, timeout=30)
        assert importing.wait(60) == 1
    assert OLD.items() <= warm.held().items()
    assert not {"vllm/cache/b.so", "large/0"} & warm.held().keys()
    assert warm.inside("ls -A /cache").split() == [stage.NAME, "triton"]
    code, err = warm.dsv4("warm", "--export", tmp_path / "mine.tar.gz")
    assert (code, "caches: packed 2 files" in err) == (0, True), err
    assert warm.dsv4("warm", "--import", tmp_path / "kernels.tar.gz")[0] == 0
    assert warm.held() == OLD | files


@pytest.mark.parametrize("status", ["running", "paused", "restarting"])
def test_a_volume_in_use_is_left_alone(warm: Machine, archive: Path, status: str) -> None:
    name = f"dsv4-warm-test-{os.getpid()}"
    command = ["docker", "run", "--detach", "--name", name, "--volume", f"{VOLUME}:/cache", "--entrypoint", "sh"]
    what = "exit 1" if status == "restarting" else "sleep 600"
    try:
        succeed(*command, "--restart", "always", warm.image, "-c", what, timeout=60)
        if status == "paused":
            succeed("docker", "pause", name, timeout=30)
        shown = ("docker", "inspect", "--format", "{{.State.Status}}", name)
        assert wait_until(lambda: succeed(*shown, timeout=30).stdout == f"{status}\n", timeout_s=120)
        for flag in ("--import", "--export"):
            code, err = warm.dsv4("warm", flag, archive)
            assert code == 2
            assert f"the volume {VOLUME} is used by {name} (" in err
            assert err.endswith(f")\n  next: run: docker stop {name}\n")
    finally:
        succeed("docker", "rm", "--force", name, timeout=60)
    assert warm.held() == OLD


def test_a_full_disk_is_told(warm: Machine, tmp_path: Path) -> None:
    archive = packed(tmp_path, {"large": os.urandom(2 << 20).hex()})
    succeed("docker", "volume", "rm", VOLUME, timeout=30)
    small = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m")
    succeed("docker", "volume", "create", *small, VOLUME, timeout=30)
    code, err = warm.dsv4("warm", "--import", archive)
    assert code == 7
    assert err == (
        "error: there is no room for these kernels in /cache, and what it holds stays as it was\n"
        "  next: make room where Docker keeps its volumes, or delete the old kernels: dsv4 down --caches\n"
    )
    # Such a volume forgets between two containers; in one, nothing but the old is left.
    script = (
        "echo old >/cache/kernel; "
        f"python3 -m dsv4_stack.guest caches unpack /cache --label '{LABEL}' 2>/dev/null; "
        "echo $?; cd /cache && find . -type f"
    )
    words = ("--rm", "--interactive", "--tmpfs", "/cache:size=1m", "--entrypoint", "sh", warm.image, "-c", script)
    done = subprocess.run(["docker", "run", *words], input=archive.read_bytes(), capture_output=True, check=True)
    assert done.stdout == b"7\n./kernel\n"
