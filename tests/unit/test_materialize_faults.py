"""Every way in which `dsv4 materialize` may fail: the exit code, the whole message, and what is left behind."""

import errno
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import BASE, CONFIG_BASE, OVERLAY, SHARDS, WANTED, World, contents, dsv4, write

from dsv4_stack.guest.checkpoint import directory, manifest
from dsv4_stack.guest.checkpoint.steps import partial_of
from dsv4_stack.guest.checkpoint.transfer import Transfer
from dsv4_stack.guest.demo.faults import Refusal
from dsv4_stack.guest.digests import of_bytes

pytest_plugins = ["helpers.hub_fixtures"]

BROKEN = "run it again; if it stays, the server or a proxy on the way is broken"
# Long enough for a listing on a busy machine.
SOON = ("--stall-limit", "1.5")
INDEX = "model.safetensors.index.json"


def failure(world: World, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and what was said after the files, as "fact | next step"."""
    capsys.readouterr()
    code = world.materialize(*arguments)
    output = capsys.readouterr()
    assert output.out == ""
    error = output.err[output.err.index("error: ") :]
    return code, error.removeprefix("error: ").removesuffix("\n").replace("\n  next: ", " | ")


def resolve(world: World, repo: str, path: str) -> str:
    return f"{world.url}/{repo}/resolve/{world.revision(repo)}/{path}"


def edit_overlay(world: World, **changes: Any) -> None:  # noqa: ANN401 - JSON values
    path = world.root / OVERLAY / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def test_a_wrong_hash(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.faults.flip.add(f"{BASE}/{SHARDS[1]}")
    content = bytearray((world.root / BASE / SHARDS[1]).read_bytes())
    content[len(content) // 2] ^= 1
    flipped, good = of_bytes(bytes(content)).sha256, world.sha256(BASE, SHARDS[1])
    message = f"{resolve(world, BASE, SHARDS[1])}: sha256 is {flipped}, {good} was promised | {BROKEN}"
    assert failure(world, capsys, "--base", BASE, "--jobs", "1") == (6, message)
    assert not (world.dest / SHARDS[1]).exists()
    assert not (world.dest / manifest.NAME).exists()
    world.server.faults.flip.clear()
    assert world.materialize("--base", BASE) == 0
    assert contents(world.dest)[SHARDS[1]] == (world.root / BASE / SHARDS[1]).read_bytes()


def test_a_shard_that_the_index_names_and_the_listing_lacks(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.faults.hide |= {f"{BASE}/{SHARDS[1]}", f"{BASE}/{SHARDS[3]}"}
    fact = f"{BASE}@{world.revision(BASE)} lacks shards that its {INDEX} names:\n  {SHARDS[1]}\n  {SHARDS[3]}"
    assert failure(world, capsys, "--base", BASE) == (4, f"{fact} | pin a complete revision")
    assert not any(shard in request for request in world.server.requests for shard in SHARDS)
    assert not world.dest.exists()


def test_a_file_that_is_listed_and_gone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.faults.gone.add(f"{BASE}/{SHARDS[0]}")
    message = (
        f"{resolve(world, BASE, SHARDS[0])}: the server answers 404 (EntryNotFound) | check the name and the revision"
    )
    assert failure(world, capsys, "--base", BASE) == (4, message)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (f"{BASE}@none", "{url} has no revision none of org/base | choose one of {url}/org/base/commits/main"),
        (
            "org/none",
            "{url} has no repository org/none, or it is private: set HF_TOKEN | check the name and $HF_ENDPOINT",
        ),
        (OVERLAY, "org/overlay@{overlay} has no safetensors files | give the repository of the weights as --base"),
        ("/no/such", "there is no folder /no/such | give a folder that exists, or org/name@revision"),
    ],
)
def test_what_does_not_exist(world: World, capsys: pytest.CaptureFixture[str], base: str, message: str) -> None:
    expected = message.format(url=world.url, overlay=world.revision(OVERLAY))
    assert failure(world, capsys, "--base", base) == (4, expected)
    assert not world.dest.exists()


def test_an_overlay_without_a_config(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.faults.hide.add(f"{OVERLAY}/config.json")
    message = f"{OVERLAY}@{world.revision(OVERLAY)} has no config.json | check the repository and its revision"
    assert failure(world, capsys, "--base", BASE, "--overlay", OVERLAY) == (4, message)


@pytest.mark.parametrize(("status", "code"), [(401, 5), (403, 5), (404, 4), (500, 8), (503, 8)])
def test_a_shard_that_is_refused(world: World, capsys: pytest.CaptureFixture[str], status: int, code: int) -> None:
    world.server.faults.refuse[f"{BASE}/{SHARDS[3]}"] = Refusal(status=status)
    # Where it may go by, it is tried again for as long as is borne: not long, but for the rest that has to come.
    found, message = failure(world, capsys, "--base", BASE, *(SOON if code == 8 else ()))
    said = f"{resolve(world, BASE, SHARDS[3])}: the server answers {status}"
    if code == 8:
        trouble = f"{SHARDS[3]}: the server answers {status}"
        said = f"no progress for 1.5 s, 12.5 KiB of 16.7 KiB came; the last trouble was: {trouble}"
    assert (found, message.partition(" | ")[0]) == (code, said)


def test_a_repository_that_needs_another_token(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.private[BASE] = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = f"{world.url} answers 401 for org/base | set HF_TOKEN to a token that may read it"
    assert failure(world, capsys, "--base", BASE) == (5, message)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert world.materialize("--base", BASE) == 0


def test_a_transfer_that_breaks_off(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.faults.cut.add(f"{BASE}/{SHARDS[0]}")
    code, message = failure(world, capsys, "--base", BASE, *SOON)
    assert code == 8
    assert re.fullmatch(
        r"no progress for 1\.5 s, 1[56]\.\d KiB of 16\.7 KiB came; the last trouble was: "
        rf"{SHARDS[0]}: the answer ended \d+ bytes too early \| what came is kept; .*",
        message,
    )
    world.server.faults.cut.clear()
    world.forget_requests()
    assert world.materialize("--base", BASE) == 0
    assert [request.rpartition("/")[2] for request in world.server.requests if ".safetensors" in request] == [SHARDS[0]]


def test_an_overlay_that_changes_one_more_thing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    edit_overlay(world, swiglu_limit=7.0, extra=[1])
    base, overlay = world.revision(BASE), world.revision(OVERLAY)
    message = (
        f"{OVERLAY}@{overlay}/config.json is not the w4a8 conversion of {BASE}@{base}/config.json:\n"
        "  swiglu_limit: 10.0 -> 7.0\n"
        "  extra: added [1] | "
        "materialize with --config convert, or pin the base's revision that the overlay was made of"
    )
    assert failure(world, capsys, "--base", BASE, "--overlay", OVERLAY) == (6, message)
    assert not any(shard in request for request in world.server.requests for shard in SHARDS)
    assert not world.dest.exists()


def test_an_unconverted_overlay_is_an_integrity_error(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.root / OVERLAY / "config.json").write_bytes(CONFIG_BASE.read_bytes())
    code, message = failure(world, capsys, "--base", BASE, "--overlay", OVERLAY)
    changed = "quantization_config.config_groups.group_1.input_activations"
    fp8 = '{"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true, "symmetric": true}'
    assert (code, message.partition(" | ")[0].splitlines()[1:]) == (6, [f"  {changed}: {fp8} -> null"])


@pytest.mark.parametrize("kind", ["overlay", "convert"])
def test_a_base_that_cannot_be_converted(world: World, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (world.root / BASE / "config.json").write_bytes(b'{"model_type": "llama"}\n')
    arguments = ["--base", BASE, "--config", kind, *(["--overlay", OVERLAY] if kind == "overlay" else [])]
    message = (
        f"{BASE}@{world.revision(BASE)}/config.json: the config has no int4 experts group: none of "
        'quantization_config.config_groups has weights of 4 bits, type "int", strategy "group" and a target that names '
        "experts | give the config.json of the W4A16 checkpoint, or materialize with --config base"
    )
    assert failure(world, capsys, *arguments) == (3, message)


def test_an_index_that_is_none(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.root / BASE / INDEX).write_bytes(b"[]")
    name = f"{BASE}@{world.revision(BASE)}/{INDEX}"
    message = f"{name} has no weight_map from tensors to files: byte 0 should be {{ | pin another revision"
    assert failure(world, capsys, "--base", BASE) == (6, message)


def test_foreign_files_are_named_and_left(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    write(world.dest, {"notes.md": b"mine", "sub/x.safetensors": b"mine", "config.json": b"{}", "empty": b""})
    (world.dest / "model.safetensors").symlink_to("/elsewhere")
    before = contents(world.dest)
    facts = "\n".join(f"  {path}" for path in ("empty", "model.safetensors", "notes.md", "sub/x.safetensors"))
    message = f"{world.dest} holds files that dsv4 did not write and does not want as they are:\n{facts}"
    step = "move them away, or choose another --dest"
    assert failure(world, capsys, "--base", BASE) == (6, f"{message} | {step}")
    assert contents(world.dest) == before
    assert not any(shard in request for request in world.server.requests for shard in SHARDS)
    for path in ("empty", "model.safetensors", "notes.md"):
        (world.dest / path).unlink()
    shutil.rmtree(world.dest / "sub")
    message = f"{world.dest} holds files that dsv4 did not write and does not want as they are:\n  config.json"
    assert failure(world, capsys, "--base", BASE) == (6, f"{message} | {step}")
    assert contents(world.dest) == {"config.json": b"{}"}


def test_a_foreign_file_beside_a_finished_checkpoint(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.materialize("--base", BASE)
    (world.dest / "more.safetensors").write_bytes(b"")
    made = (world.dest / manifest.NAME).read_bytes()
    message = (
        f"{world.dest} holds files that dsv4 did not write and does not want as they are:\n  more.safetensors | "
        "move them away, or choose another --dest"
    )
    assert failure(world, capsys, "--base", BASE) == (6, message)
    assert (world.dest / manifest.NAME).read_bytes() == made


def test_what_a_file_system_puts_there_is_not_foreign(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A volume that is mounted right at the destination, and an NFS client that keeps what another process has open."""
    write(world.dest, {"lost+found/#12345": b"recovered", ".nfs00000000004c0a1200000001": b""})
    assert world.materialize("--base", BASE) == 0
    write(world.dest, {"encoding/.nfs00000000004c0a1200000002": b""})
    capsys.readouterr()
    assert world.materialize("--base", BASE) == 0
    assert capsys.readouterr().out.startswith("materialize: nothing to fetch, ")
    assert dsv4("gate", str(world.dest), "--deep") == 0
    assert (world.dest / "lost+found/#12345").read_bytes() == b"recovered"


def test_nothing_is_written_where_a_file_system_has_its_own(world: World) -> None:
    write(world.root / BASE, {"lost+found/x.json": b"{}"})
    assert world.materialize("--base", BASE) == 0
    assert sorted(contents(world.dest)) == WANTED


def test_a_folder_that_cannot_be_read_is_named(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test run by root may read everywhere, so the system's answer is made up."""
    (world.dest / "encoding").mkdir(parents=True)
    plain = os.scandir

    def refuse(path: Path) -> Any:  # noqa: ANN401 - as os.scandir
        if path == world.dest / "encoding":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return plain(path)

    monkeypatch.setattr(os, "scandir", refuse)
    message = f"{world.dest}/encoding cannot be read: Permission denied | run it as a user who may read it"
    assert failure(world, capsys, "--base", BASE) == (1, message)


def test_too_small_a_disk_is_told_before_the_first_shard(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum((world.root / BASE / path).stat().st_size for path in WANTED)
    usage = shutil.disk_usage(world.root)._replace(free=size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    margin = size // 1000 + (1 << 20)
    message = (
        f"{world.dest} needs 23.3 KiB ({size} bytes) more and a margin of 1.0 MiB, "
        f"and 23.3 KiB ({size - 1} bytes) are free | "
        f"make room there, or choose another --dest; see: df -h {world.dest}"
    )
    assert failure(world, capsys, "--base", BASE) == (7, message)
    assert not any(shard in request for request in world.server.requests for shard in SHARDS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=size + margin))
    assert world.materialize("--base", BASE) == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=margin))
    (world.dest / SHARDS[0]).write_bytes(bytes((world.dest / SHARDS[0]).stat().st_size))
    assert world.materialize("--base", BASE) == 0  # what is replaced makes room


def test_what_xet_has_brought_of_a_file_needs_no_room_again(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {path: (world.root / BASE / path).stat().st_size for path in WANTED}
    room = partial_of(world.dest, SHARDS[1]).with_name(f"{partial_of(world.dest, SHARDS[1]).name}.xet")
    write(room, {"part-of-it": bytes(3072), "part-of-another": bytes(sizes[SHARDS[1]] + 1)})
    needed = sum(sizes.values()) - 3072
    # The other part will be removed.
    free = needed + (1 << 20) + needed // 1000 - blocks(room / "part-of-another") - (blocks(room / "part-of-it") - 3072)
    usage = shutil.disk_usage(world.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert world.materialize("--base", BASE, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"fetch  {SHARDS[1]}, 4.1 KiB, 3.0 KiB of it are there" in lines
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free - 1))
    code, message = failure(world, capsys, "--base", BASE, "--dry-run")
    assert (code, message.partition(" more ")[0]) == (7, f"{world.dest} needs 20.3 KiB ({needed} bytes)")


def test_of_two_ways_the_one_that_has_brought_less_takes_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.server.faults.cut.add(f"{BASE}/{SHARDS[0]}")
    assert world.materialize("--base", BASE, *SOON) == 8
    world.server.faults.cut.clear()
    room = partial_of(world.dest, SHARDS[0]).with_name(f"{partial_of(world.dest, SHARDS[0]).name}.xet")
    write(room, {"part-of-it": b"x"})
    plain, removed = directory.remove, []

    def remove(folder: Path, paths: list[str]) -> None:
        removed.extend(paths)
        plain(folder, paths)

    monkeypatch.setattr(directory, "remove", remove)
    assert world.materialize("--base", BASE) == 0
    assert removed == [(room / "part-of-it").relative_to(world.dest).as_posix()]


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_disk_that_fills_up(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.fsync

    def full(handle: int) -> None:
        if SHARDS[2] in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(handle)

    monkeypatch.setattr(os, "fsync", full)
    code, message = failure(world, capsys, "--base", BASE)
    folder = world.dest / ".dsv4" / "partial"
    assert code == 7
    assert message.startswith(f"{folder}/")
    assert message.endswith(f": No space left on device | make room there; see: df -h {folder}")
    assert not (world.dest / manifest.NAME).exists()
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", world.url)
    assert world.materialize("--base", BASE) == 0
    assert contents(world.dest)[SHARDS[2]] == (world.root / BASE / SHARDS[2]).read_bytes()


def test_a_destination_that_is_a_file(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.dest.write_bytes(b"")
    message = (
        f"{world.dest}/.dsv4 cannot be written: Not a directory | "
        "choose a folder that this user may write, or mount it read-write"
    )
    assert failure(world, capsys, "--base", BASE) == (2, message)


def test_a_read_only_destination(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test run by root may write everywhere, so the system's answer is made up."""

    def refuse(_path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = (
        f"{world.dest}/.dsv4 cannot be written: Read-only file system | "
        "choose a folder that this user may write, or mount it read-write"
    )
    assert failure(world, capsys, "--base", BASE) == (2, message)
    assert world.server.requests == []


def test_where_no_temporary_file_can_be(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a read-only root and no /tmp. A dry run may not write to the destination either."""

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    message = "no folder for temporary files can be written | set TMPDIR to one that can"
    assert failure(world, capsys, "--base", BASE, "--dry-run") == (2, message)
    assert not world.dest.exists()
    assert world.materialize("--base", BASE) == 0
    assert [path.name for path in (world.dest / ".dsv4").iterdir()] == ["manifest.json"]


def test_a_failure_before_the_first_file_leaves_no_folder(world: World) -> None:
    (world.root / BASE / INDEX).write_bytes(b"{}")
    assert world.materialize("--base", BASE) == 6
    assert not world.dest.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--base", "name"],
            "'name' is no repository | write org/name@revision, for example demo/tiny-counter@main",
        ),
        (
            ["--base", BASE, "--config", "overlay"],
            "--config overlay does not go without --overlay | leave one out, or both",
        ),
        (
            ["--base", BASE, "--config", "base", "--overlay", OVERLAY],
            "--config base does not go with --overlay | leave one out, or both",
        ),
        (["--base", BASE, "--jobs", "0"], "--jobs should be at least 1 | leave it out for 24"),
    ],
)
def test_what_does_not_go_together(
    world: World, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert failure(world, capsys, *arguments) == (2, message)
    assert world.server.requests == []


def test_a_source_may_not_hold_its_destination(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    parent = world.dest.parent
    message = f"{parent} and {world.dest} lie in one another | choose a --dest apart from the source"
    assert failure(world, capsys, "--base", str(parent)) == (2, message)


def test_a_failed_change_leaves_no_manifest_and_forgets_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.materialize("--base", BASE)
    write(world.root / BASE, {"generation_config.json": b'{"new": 1}\n'})
    revision = world.revision(BASE)
    world.server.faults.gone.add(f"{BASE}/generation_config.json")
    code, _ = failure(world, capsys, "--base", f"{BASE}@{revision}")
    assert code == 4
    assert not (world.dest / manifest.NAME).exists()
    world.server.faults.gone.clear()
    world.forget_requests()
    assert world.materialize("--base", f"{BASE}@{revision}") == 0
    assert not any(shard in request for request in world.server.requests for shard in SHARDS)
    assert (world.dest / "generation_config.json").read_bytes() == b'{"new": 1}\n'


def test_a_failed_request_for_something_else_leaves_the_old_manifest(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.materialize("--base", BASE)
    made = (world.dest / manifest.NAME).read_bytes()
    edit_overlay(world, extra=1)
    assert failure(world, capsys, "--base", BASE, "--overlay", OVERLAY)[0] == 6
    assert (world.dest / manifest.NAME).read_bytes() == made
    assert world.materialize("--base", BASE) == 0


def test_a_killed_run_takes_nothing_of_its_own_for_foreign(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after some files of one revision, then asked for another in which one of them is different or gone."""
    plain = Transfer._place
    done: list[str] = []

    def killed(transfer: Transfer, file: Any, *args: Any) -> None:  # noqa: ANN401 - as _place
        if len(done) == 9:
            raise KeyboardInterrupt
        plain(transfer, file, *args)
        done.append(file.path)

    monkeypatch.setattr(Transfer, "_place", killed)
    assert world.materialize("--base", BASE, "--jobs", "1") == 130
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", world.url)
    assert set(contents(world.dest)) == set(done)
    assert {"config.json", "chat_template.jinja"} <= set(done)
    (world.root / BASE / "chat_template.jinja").unlink()
    world.forget_requests()
    revision = world.revision(BASE)
    assert world.materialize("--base", f"{BASE}@{revision}", "--config", "convert") == 0
    assert sorted(contents(world.dest)) == [path for path in WANTED if path != "chat_template.jinja"]
    assert not any(shard in request for request in world.server.requests for shard in SHARDS)
    assert "error" not in capsys.readouterr().err
    assert [path.name for path in (world.dest / ".dsv4").iterdir()] == ["manifest.json"]
