"""The serve images on stand-in bases: Debian, and the Python files of the real vLLM wheel of each engine."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import file_server
from helpers.images import build, build_image, inspect, remove_image, run_container
from helpers.installers import write_dockerfile
from helpers.process import ROOT
from helpers.standin import EFFECTS, build_standin
from helpers.wheels import tree
from helpers.wheels_made import make_wheel, sha256_of

from dsv4_stack import assets, pins

pytestmark = [pytest.mark.docker, pytest.mark.network]

PINS = pins.load(assets.PINS)
NIGHTLY = PINS.engines["nightly"]
TORCH = PINS.releases[NIGHTLY.releases[0]].torch
GUEST = {"guest": "deploy/dsv4_stack"}


@pytest.fixture(scope="module")
def standin(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tag = build_standin(base, "0.23.0", tmp_path_factory.mktemp("standin"))
    yield tag
    remove_image(tag)


@pytest.fixture(scope="module")
def serve(standin: str) -> Iterator[str]:
    tag = f"dsv4-test/serve:{os.getpid()}"
    build_image("docker/serve", tag=tag, dockerfile="Dockerfile.v0.23.0", args={"BASE_IMAGE": standin}, contexts=GUEST)
    yield tag
    remove_image(tag)


def test_the_default_engine_is_built_of_its_wheel_over_a_later_release(base: str, tmp_path: Path) -> None:
    """The wheel has the files of the release before the commit, the base those of the one after it."""
    tag, under = f"dsv4-test/serve-nightly:{os.getpid()}", f"dsv4-test/vllm-with-uv:{os.getpid()}"
    release = build_standin(base, "0.25.1", tmp_path)
    context = tmp_path / "with-uv"
    make_wheel(context / "wheels", "torch", TORCH)
    write_dockerfile(context, "uv", f"torch=={TORCH}")
    before = tree("0.24.0")
    files = {str(path.relative_to(before)): path.read_text() for path in before.rglob("vllm/**/*.py")}
    wheel = make_wheel(tmp_path / "wheel", "vllm", NIGHTLY.version, (f"torch=={TORCH}",), files)
    try:
        build_image(str(context), tag=under, args={"BASE_IMAGE": release})
        with file_server.serving() as site:
            args = {"BASE_IMAGE": under, "WHEEL_URL": site.put(wheel), "WHEEL_SHA256": sha256_of(wheel)}
            build_image("docker/serve", tag=tag, args=args, contexts=GUEST, network="host")
        record = "cat /opt/dsv4/build.json"
        done = run_container("--entrypoint", "sh", tag, "-c", f"{EFFECTS} >&2 && {record}")
        assert done.stderr.count(" in effect\n") == 5
        built = json.loads(done.stdout)
        assert (built["vllm"], built["torch"]) == (NIGHTLY.version, TORCH)
        assert (built["wheel"]["sha256"], built["wheel"]["locked"]) == (sha256_of(wheel), True)
    finally:
        for image in (tag, under, release):
            remove_image(image)


def test_every_effect_is_proved_in_the_image(serve: str) -> None:
    done = run_container("--entrypoint", "sh", serve, "-c", EFFECTS)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "0001-packed-modules-mapping",
        "0002-packed-modules-mapping-mtp",
        "0003-hash-moe-layer-type",
        "0004-o-proj-scale-name",
        "0005-w4a8-swiglu-clamp",
    ]


def test_an_effect_that_is_gone_stops_the_engine(serve: str) -> None:
    spoil = "f=$(python3 -c \"import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])\")"
    spoil += "/models/deepseek_v4/nvidia/model.py; sed -i 's/packed_modules_mapping/renamed/' $f; "
    done = run_container("--entrypoint", "sh", serve, "-c", spoil + EFFECTS)
    assert done.returncode == 11
    assert "0001-packed-modules-mapping" in done.stderr


def test_it_adds_less_than_a_megabyte_to_its_base(serve: str, standin: str) -> None:
    assert inspect(serve)["Size"] - inspect(standin)["Size"] < 1_000_000


def test_stale_bytecode_is_gone(serve: str) -> None:
    code = "import importlib.util as u, pathlib as p; v = p.Path(u.find_spec('vllm').submodule_search_locations[0]);"
    code += "print(sorted(f.name.split('.')[0] for f in (v / 'models/deepseek_v4/nvidia').rglob('*.pyc')"
    code += " if f.name.split('.')[0] in ('model', 'mtp', 'o_proj', 'attention')))"
    done = run_container("--entrypoint", "python3", serve, "-B", "-c", code)
    assert done.stdout == "[]\n"


def test_a_changed_patch_rebuilds_small_layers_alone(serve: str, standin: str, tmp_path: Path) -> None:
    copy, tag = tmp_path / "serve", f"dsv4-test/serve-changed:{os.getpid()}"
    shutil.copytree(ROOT / "docker/serve", copy)
    patch = copy / "patches/0004-o-proj-scale-name.patch"
    patch.write_text(patch.read_text().replace("Subject: ", "Subject: Once more: ", 1))
    try:
        build_image(str(copy), tag=tag, dockerfile="Dockerfile.v0.23.0", args={"BASE_IMAGE": standin}, contexts=GUEST)
        before, after, base = (inspect(image)["RootFS"]["Layers"] for image in (serve, tag, standin))
        assert after[: len(base)] == base
        # The guest code and the entrypoint stand before the patches, and are not built again: two layers are.
        assert after[: len(base) + 3] == before[: len(base) + 3]
        assert len(after) == len(base) + 5
        assert after != before
    finally:
        remove_image(tag)


def test_a_moved_anchor_fails_the_build_with_exit_11_and_the_patch(standin: str, tmp_path: Path) -> None:
    moved, tag = f"dsv4-test/vllm-moved:{os.getpid()}", f"dsv4-test/serve-moved:{os.getpid()}"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {standin}\nRUN f=$(find / -path '*deepseek_v4/nvidia/ops/o_proj.py' 2>/dev/null | head -n 1); "
        "sed -i 's/weight_scale_inv/scale_of_weight/' $f\n"
    )
    try:
        build_image(str(tmp_path), tag=moved)
        done = build(
            "docker/serve", tag=tag, dockerfile="Dockerfile.v0.23.0", args={"BASE_IMAGE": moved}, contexts=GUEST
        )
        assert done.returncode != 0
        assert "exit code: 11" in done.stderr
        assert "0004-o-proj-scale-name" in done.stderr
    finally:
        remove_image(tag)
        remove_image(moved)
