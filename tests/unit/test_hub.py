"""What the Hub holds, and every way in which it may refuse."""

from pathlib import Path
from typing import Any

import pytest
from helpers.hub import BASE, OVERLAY, SHARDS, World
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.errors import (
    ConfigError,
    Dsv4Error,
    IntegrityError,
    NetworkError,
    NotAllowedError,
    NotFoundError,
    UsageError,
)
from dsv4_stack.guest import access, hub, references
from dsv4_stack.guest.demo.faults import Refusal
from dsv4_stack.guest.digests import of_bytes
from dsv4_stack.guest.hub import RemoteFile

TOKEN = "set HF_TOKEN to a token that may read it"

pytest_plugins = ["helpers.hub_fixtures"]


def test_a_snapshot_is_one_request_and_knows_every_size_and_hash(world: World) -> None:
    folder = world.root / BASE
    revision = world.revision(BASE)
    snapshot = hub.snapshot(BASE, "main")
    assert (snapshot.repo, snapshot.requested, snapshot.revision) == (BASE, "main", revision)
    for file in snapshot.files:
        own = of_bytes((folder / file.path).read_bytes())
        sha256 = own.sha256 if file.path in SHARDS else None
        assert file == RemoteFile(path=file.path, size=own.size, sha256=sha256, blob_id=own.git_sha1)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert [file.path for file in snapshot.files] == paths
    assert world.server.requests == [f"GET /api/models/{BASE}/revision/main?blobs=true"]
    assert hub.snapshot(BASE, revision).files == snapshot.files


def test_a_file_is_fetched_and_hashed(world: World, tmp_path: Path) -> None:
    snapshot = hub.snapshot(BASE, "main")
    for file in snapshot.files:
        content = (world.root / BASE / file.path).read_bytes()
        digests = hub.fetch(snapshot, file, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == content
        assert digests.sha256 == of_bytes(content).sha256


@pytest.mark.parametrize(
    ("refusal", "error", "message", "step"),
    [
        (
            Refusal(status=401, code="RepoNotFound"),
            NotFoundError,
            "{url} has no repository org/base, or it is private: set HF_TOKEN",
            "check the name and $HF_ENDPOINT",
        ),
        (
            Refusal(status=404),
            NotFoundError,
            "{url} has no repository org/base, or it is private: set HF_TOKEN",
            "check the name and $HF_ENDPOINT",
        ),
        (
            Refusal(status=403, code="GatedRepo"),
            NotAllowedError,
            "org/base is gated, and this token has no access",
            "ask for access on {url}/org/base, then set HF_TOKEN",
        ),
        (
            Refusal(status=404, code="RevisionNotFound"),
            NotFoundError,
            "{url} has no revision main of org/base",
            "choose one of {url}/org/base/commits/main",
        ),
        (
            Refusal(status=401),
            NotAllowedError,
            "{url} answers 401 for org/base",
            "set HF_TOKEN to a token that may read it",
        ),
        (
            Refusal(status=403),
            NotAllowedError,
            "{url} answers 403 for org/base",
            "set HF_TOKEN to a token that may read it",
        ),
        (Refusal(status=429), NetworkError, "{url} answers 429 for org/base", "run it again later"),
        (Refusal(status=503), NetworkError, "{url} answers 503 for org/base", "run it again later"),
    ],
)
def test_a_refusal_has_its_own_error(
    world: World, refusal: Refusal, error: type[Dsv4Error], message: str, step: str
) -> None:
    world.server.faults.refuse[BASE] = refusal
    with pytest.raises(error) as raised:
        hub.snapshot(BASE, "main")
    assert str(raised.value) == f"{message}\n  next: {step}".format(url=world.url)


def test_a_private_repository_needs_its_token(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world.server.private[BASE] = "hf_secret"
    with pytest.raises(NotFoundError):
        hub.snapshot(BASE, "main")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(NotAllowedError) as raised:
        hub.snapshot(BASE, "main")
    assert raised.value.message == f"{world.url} answers 401 for org/base"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    snapshot = hub.snapshot(BASE, "main")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert hub.fetch(snapshot, snapshot.files[0], tmp_path / "file").size == snapshot.files[0].size


def test_nobody_listens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.url
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError) as raised:
        hub.snapshot(BASE, "main")
    assert raised.value.message == "http://127.0.0.1:9: ConnectError: [Errno 111] Connection refused"


def test_offline_mode_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError) as raised:
        hub.snapshot(BASE, "main")
    assert raised.value.message == f"org/base@main: HF_HUB_OFFLINE is set, so {world.url} is not asked"
    assert world.server.requests == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"id": BASE, "sha": "main", "siblings": []}, "org/base@main: the Hub names 'main' as its commit"),
        ({"id": BASE, "siblings": []}, "org/base@main: the Hub names None as its commit"),
        (
            {"id": BASE, "sha": "0" * 40, "siblings": [{"rfilename": "a//x.json", "size": 1, "blobId": "0" * 40}]},
            "org/base@main has names that are not safe to write:\n  'a//x.json': empty, . or .. part",
        ),
    ],
)
def test_an_unbelievable_listing_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("dsv4_stack.guest.demo.server._Handler._api", lambda self, *_, **__: self._json(answer))
    with pytest.raises(IntegrityError) as raised:
        hub.snapshot(BASE, "main")
    assert raised.value.message == message
    assert len(world.server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([], "huggingface_hub.hf_api.ModelInfo() argument after ** must be a mapping, not list"),
        ({"id": BASE, "sha": "0" * 40, "siblings": [{"rfilename": "x"}]}, "no size of 'x'"),
        ({"id": BASE, "sha": "0" * 40, "siblings": [{"rfilename": "x", "size": 1}]}, "no hash of 'x'"),
    ],
)
def test_what_is_no_listing_is_no_hub(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: object, problem: str
) -> None:
    monkeypatch.setattr("dsv4_stack.guest.demo.server._Handler._api", lambda self, *_, **__: self._json(answer))
    with pytest.raises(NetworkError) as raised:
        hub.snapshot(BASE, "main")
    where = f"{world.url} answers with something that is no listing of org/base: "
    assert raised.value.message.removeprefix(where).partition(": ")[2] == problem


def test_another_commit_than_the_pinned_one_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"id": BASE, "sha": "1" * 40, "siblings": []}
    monkeypatch.setattr("dsv4_stack.guest.demo.server._Handler._api", lambda self, *_, **__: self._json(answer))
    with pytest.raises(IntegrityError) as raised:
        hub.snapshot(BASE, "0" * 40)
    assert raised.value.message == f"org/base@{'0' * 40}: the Hub answers with the commit {'1' * 40}"
    assert len(world.server.requests) == 1


def test_a_flipped_byte_of_a_small_file_is_found_by_its_git_hash(world: World, tmp_path: Path) -> None:
    snapshot = hub.snapshot(OVERLAY, "main")
    world.server.faults.flip.add(f"{OVERLAY}/README.md")
    file = next(file for file in snapshot.files if file.path == "README.md")
    content = bytearray(b"# overlay\n")
    content[5] ^= 1
    with pytest.raises(IntegrityError) as raised:
        hub.fetch(snapshot, file, tmp_path / "file")
    url = f"{world.url}/{OVERLAY}/resolve/{snapshot.revision}/README.md"
    assert raised.value.message == (
        f"{url}: the git hash is {of_bytes(bytes(content)).git_sha1}, {file.blob_id} was promised"
    )
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("org/name", ("org/name", "main")),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("org/name@refs/pr/3", ("org/name", "refs/pr/3")),
        ("a.b/c_d-e@" + "0" * 40, ("a.b/c_d-e", "0" * 40)),
    ],
)
def test_a_reference_is_a_repository_and_a_revision(reference: str, parsed: tuple[str, str]) -> None:
    assert references.parse_reference(reference) == parsed


@given(st.text(max_size=20) | st.from_regex(r"[a@/.]{1,8}", fullmatch=True))
def test_any_text_is_a_reference_or_a_usage_error(reference: str) -> None:
    try:
        repo, revision = references.parse_reference(reference)
    except UsageError as error:
        assert error.message == f"{reference!r} is no repository"  # noqa: PT017
        return
    assert reference in (f"{repo}@{revision}", repo)
    assert repo.count("/") == 1
    assert revision


@pytest.mark.usefixtures("offline_environment")
def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    assert access.token() is None
    monkeypatch.setenv("HF_TOKEN_PATH", str(file))
    assert access.token() is None
    file.write_text("\n")
    assert access.token() is None
    file.write_text("hf_file\n")
    assert access.token() == "hf_file"
    host = tmp_path / "host"
    host.write_text("hf_host\n")
    monkeypatch.setenv("HF_TOKEN_FILE", str(host))
    assert access.token() == "hf_host"
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert access.token() == "hf_environment"


@pytest.mark.usefixtures("offline_environment")
@pytest.mark.parametrize("secret", ["hf_a b", "hf_é", "hf_a\nb"])
def test_a_broken_token_is_not_shown(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("HF_TOKEN", secret)
    with pytest.raises(ConfigError) as raised:
        access.token()
    assert raised.value.message == "the token of the Hub has characters that no token has"


@pytest.mark.usefixtures("offline_environment")
@pytest.mark.parametrize(
    ("variable", "name", "reason"),
    [
        ("HF_TOKEN_PATH", "", "[Errno 21] Is a directory"),
        ("HF_TOKEN_FILE", "", "[Errno 21] Is a directory"),
        ("HF_TOKEN_FILE", "no", "[Errno 2] No such file or directory"),
    ],
)
def test_a_token_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str, reason: str
) -> None:
    path = tmp_path / name
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(ConfigError) as raised:
        access.token()
    assert (raised.value.message, raised.value.next_step) == (
        f"the token file {path} cannot be read: {reason}: '{path}'",
        "mend $HF_TOKEN or the file that $HF_TOKEN_FILE names",
    )


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("", "https://huggingface.co"),
        ("http://hub:8000/", "http://hub:8000"),
        ("https://mirror/hf", "https://mirror/hf"),
    ],
)
def test_the_endpoint_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, value: str, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    assert access.endpoint() == endpoint
    assert (
        hub.resolve_url("org/name", "refs/pr/1", "a b/c.json")
        == f"{endpoint}/org/name/resolve/refs%2Fpr%2F1/a%20b/c.json"
    )


def test_an_endpoint_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    with pytest.raises(ConfigError) as raised:
        access.endpoint()
    assert raised.value.message == "HF_ENDPOINT should begin with http:// or https://, not be 'huggingface.co'"
