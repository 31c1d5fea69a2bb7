"""What a repository of the Hub holds at a revision, and its files. The one importer of huggingface_hub."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dsv4_stack.errors import (
    IntegrityError,
    NetworkError,
    NotAllowedError,
    NotFoundError,
    UsageError,
)
from dsv4_stack.guest import access, http, retry_after
from dsv4_stack.guest.checkpoint import names
from dsv4_stack.guest.digests import Advance, Digests, ignore

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
TIMEOUT_S: Final = 30.0
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """`size` in bytes. The Hub knows the sha256 of large files; `blob_id` is the git hash of the others' bytes."""

    path: str
    size: int
    sha256: str | None
    blob_id: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A repository at one commit, which `requested` (a branch, a tag or that commit) stood for."""

    repo: str
    requested: str
    revision: str
    files: tuple[RemoteFile, ...]


def resolve_url(repo: str, revision: str, path: str) -> str:
    return f"{access.endpoint()}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


def snapshot(repo: str, revision: str) -> Snapshot:
    """Ask what is there, in one request.

    Raises NotFoundError, NotAllowedError, NetworkError, IntegrityError, UsageError, ConfigError.
    """
    with _asking(repo, revision):
        import huggingface_hub  # noqa: PLC0415 - a quarter of a second

        if bundle := http.ca_bundle():
            os.environ["SSL_CERT_FILE"] = bundle  # the Hub's client knows no other way
        # `False`, because None would take a token that someone left in ~/.cache/huggingface.
        api = huggingface_hub.HfApi(endpoint=access.endpoint(), token=access.token() or False)
        # Not list_repo_tree: it takes no timeout, and one request says as much.
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
        files = tuple(_file(sibling) for sibling in info.siblings or ())
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise IntegrityError(f"{repo}@{revision}: the Hub names {info.sha!r} as its commit", "check $HF_ENDPOINT")
    if COMMIT.fullmatch(revision) and info.sha != revision:
        raise IntegrityError(f"{repo}@{revision}: the Hub answers with the commit {info.sha}", "check $HF_ENDPOINT")
    problems = names.problems_of(file.path for file in files if names.is_wanted(file.path))
    if problems:
        raise IntegrityError(
            f"{repo}@{revision} has names that are not safe to write:\n"
            + "\n".join(f"  {problem}" for problem in problems),
            "pin another revision",
        )
    return Snapshot(repo=repo, requested=revision, revision=info.sha, files=files)


def fetch(snapshot: Snapshot, file: RemoteFile, partial: Path, advance: Advance = ignore) -> Digests:
    """Download a file and prove it against what the listing said. Raises as `http.download` does."""
    url = resolve_url(snapshot.repo, snapshot.revision, file.path)
    digests = http.download(url, access.bearer(), partial, size=file.size, sha256=file.sha256, advance=advance)
    if not file.sha256 and digests.git_sha1 != file.blob_id:
        partial.unlink()
        raise IntegrityError(
            f"{http.shown(url)}: the git hash is {digests.git_sha1}, {file.blob_id} was promised",
            "run it again; if it stays, the server or a proxy on the way is broken",
        )
    return digests


def xet_hash(repo: str, revision: str, path: str) -> str:
    """The name of a file's content in the Hub's xet storage.

    Raises NotFoundError, NotAllowedError, NetworkError, ConfigError.
    """
    with _asking(repo, revision):
        import huggingface_hub  # noqa: PLC0415
        from huggingface_hub import errors  # noqa: PLC0415

        try:
            found = huggingface_hub.get_hf_file_metadata(
                resolve_url(repo, revision, path),
                token=access.token() or False,
                timeout=TIMEOUT_S,
                endpoint=access.endpoint(),
            ).xet_file_data
        except errors.EntryNotFoundError:
            raise NotFoundError(f"{repo}@{revision} has no {path}", "check the name and the revision") from None
    if not found or not _SHA256.fullmatch(found.file_hash):
        raise NotAllowedError(
            f"{path}: plain HTTP is refused, and {repo}@{revision} offers it by no other way", "check $HF_ENDPOINT"
        )
    return found.file_hash


def _file(sibling: "RepoSibling") -> RemoteFile:
    path, size, blob_id = sibling.rfilename, sibling.size, sibling.blob_id or ""
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    if not isinstance(path, str):
        raise TypeError(f"{path!r} is no name")
    if type(size) is not int or size < 0:
        raise ValueError(f"no size of {path!r}")
    if not (_SHA256.fullmatch(sha256) if sha256 else COMMIT.fullmatch(blob_id)):
        raise ValueError(f"no hash of {path!r}")
    return RemoteFile(path=path, size=size, sha256=sha256, blob_id=blob_id)


@contextmanager
def _asking(repo: str, revision: str) -> Iterator[None]:
    """The client's exceptions by our names. A gated repository is a kind of missing one, so it comes first."""
    # Else the client first asks /api/agent-harnesses, which costs three seconds where nobody answers.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # The Hub's client lets its transport's exceptions through, and has no base class of its own for them:
    # https://github.com/huggingface/huggingface_hub/blob/v2.4.0/src/huggingface_hub/errors.py
    import httpx2  # noqa: PLC0415
    from huggingface_hub import errors  # noqa: PLC0415

    where = http.shown(access.endpoint())
    try:
        yield
    except errors.GatedRepoError:
        raise NotAllowedError(
            f"{repo} is gated, and this token has no access", f"ask for access on {where}/{repo}, then set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise NotFoundError(
            f"{where} has no revision {revision} of {repo}", f"choose one of {where}/{repo}/commits/main"
        ) from None
    except errors.HfHubHTTPError as error:
        raise _refused(where, repo, error.response.status_code, error.response.headers) from None
    except errors.OfflineModeIsEnabled:
        raise NetworkError(
            f"{repo}@{revision}: HF_HUB_OFFLINE is set, so {where} is not asked",
            "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE",
        ) from None
    except errors.HFValidationError as error:
        raise UsageError(str(error), "write org/name@revision") from None
    except httpx2.HTTPError as error:
        raise NetworkError(
            f"{where}: {type(error).__name__}: {error}", "check the network and $HF_ENDPOINT, then run it again"
        ) from None
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise NetworkError(
            f"{where} answers with something that is no listing of {repo}: {type(error).__name__}: {error}",
            "check $HF_ENDPOINT",
        ) from None


def _refused(
    where: str, repo: str, status: int, headers: Mapping[str, str]
) -> NetworkError | NotAllowedError | NotFoundError:
    if headers.get("X-Error-Code") == "RepoNotFound" or status == 404:
        return NotFoundError(
            f"{where} has no repository {repo}, or it is private: set HF_TOKEN", "check the name and $HF_ENDPOINT"
        )
    if status in (401, 403):
        return NotAllowedError(f"{where} answers {status} for {repo}", "set HF_TOKEN to a token that may read it")
    wait_s = retry_after.wait_s(headers)
    step = f"run it again in {wait_s:.0f} s" if wait_s else "run it again later"
    return NetworkError(f"{where} answers {status} for {repo}", step, wait_s=wait_s)
