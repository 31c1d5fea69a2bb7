"""Bytes and JSON over HTTP, with proxies and CAs from the environment. No retries. The one importer of requests."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from dsv4_stack.errors import Dsv4Error, IntegrityError, NetworkError, NotAllowedError, NotFoundError
from dsv4_stack.guest import ca, files
from dsv4_stack.guest.digests import CHUNK, Advance, Digests, Hasher, ignore

if TYPE_CHECKING:
    import requests

CONNECT_S: Final = 10.0
READ_S: Final = 60.0
ANSWER_S: Final = 300.0
"""A completion at a cold engine may take minutes."""

_CHECK_NETWORK: Final = (
    "check the network, the proxy ($HTTPS_PROXY) and an extra CA ($DSV4_EXTRA_CA), then run it again"
)


def download(
    url: str,
    headers: Mapping[str, str],
    partial: Path,
    *,
    size: int | None,
    sha256: str | None,
    advance: Advance = ignore,
) -> Digests:
    """Fetch into `partial`, hashing on the way; on return the bytes are on the disk and the promised ones.

    Without a promised sha256 the result has the git hash too, if the size is known. Raises NetworkError,
    NotAllowedError, NotFoundError, IntegrityError, NoSpaceError, UsageError; then there is no `partial`.
    """
    try:
        with files.writing(partial), _answer("GET", url, headers) as response:
            _refuse_other_size(url, response, size)
            digests = _receive(response, partial, Hasher(git_size=None if sha256 else size), advance)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    try:
        _refuse_other_bytes(url, digests, size, sha256)
    except IntegrityError:
        partial.unlink()
        raise
    return digests


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of a file of `size` bytes."""

    data: bytes
    size: int


def part(url: str, span: str) -> Part | None:
    """The bytes of `span` ("0-99", or "-100" for the last 100); None where the server sends whole files alone.

    Raises NetworkError, NotAllowedError, NotFoundError.
    """
    with _answer("GET", url, {"Range": f"bytes={span}"}) as response:
        if response.status_code != 206:
            return None
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
        if not size.isdecimal():
            raise NetworkError(f"{shown(url)}: the server does not say how large it is", _CHECK_NETWORK)
        return Part(data=response.content, size=int(size))


def head(url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """The answer's headers alone. Raises NetworkError, NotAllowedError, NotFoundError."""
    with _answer("HEAD", url, headers) as response:
        return response.headers


def challenge(url: str) -> str:
    """What a server wants to see before it answers (WWW-Authenticate); empty where it answers anybody."""
    with _answer("GET", url, {}, allowed=(401,)) as response:
        return response.headers.get("WWW-Authenticate", "") if response.status_code == 401 else ""


def size_of(url: str) -> int:
    """What a download would bring, in bytes. Raises NetworkError, NotAllowedError, NotFoundError."""
    with _answer("HEAD", url, {}) as response:
        length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise NetworkError(f"{shown(url)}: the server does not say how large it is", _CHECK_NETWORK)
    return int(length)


def get_json(url: str, *, direct: bool = True) -> dict[str, Any]:
    """The object that a service answers; with `direct` it is on this machine, and no proxy is asked.

    Raises NetworkError, NotAllowedError, NotFoundError.
    """
    with _answer("GET", url, {}, direct=direct, read_s=ANSWER_S) as response:
        return _json(url, response)


def post_json(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """As `get_json`, with a JSON body."""
    with _answer("POST", url, {}, body=body, direct=True, read_s=ANSWER_S) as response:
        return _json(url, response)


def ca_bundle() -> str | None:
    """The file of the CAs to believe, None for the usual ones. Raises ConfigError."""
    return ca.bundle(ca.usual)


def shown(url: str) -> str:
    """A URL for messages: without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def _answer(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    body: Mapping[str, Any] | None = None,
    direct: bool = False,
    read_s: float = READ_S,
    allowed: tuple[int, ...] = (),
) -> Iterator["requests.Response"]:
    """A good answer whose body is still to be read; what goes wrong meanwhile is named. `direct` asks no proxy."""
    import requests  # noqa: PLC0415 - a tenth of a second, which `gate` and `--help` do without

    verify: str | bool = ca_bundle() or True
    # The Hub would compress JSON; hashes and sizes are those of the plain bytes.
    plain = {"Accept-Encoding": "identity", "User-Agent": "dsv4-stack", **headers}
    with requests.Session() as session:
        session.trust_env = not direct
        # Without an `auth` of our own, requests lets ~/.netrc replace the Authorization header.
        session.auth = _unchanged
        try:
            with session.request(
                method,
                url,
                headers=plain,
                json=body,
                stream=True,
                allow_redirects=True,
                timeout=(CONNECT_S, read_s),
                verify=verify,
            ) as response:
                if response.status_code not in allowed:
                    _raise_for_status(url, response)
                yield response
        except requests.RequestException as error:
            raise _network_error(url, error) from error


def _unchanged(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    return request


def _network_error(url: str, error: BaseException) -> NetworkError:
    """The innermost cause speaks: the outer ones repeat URLs, which may be signed."""
    name = type(error).__name__
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return NetworkError(f"{shown(url)}: {name}: {reason}", _CHECK_NETWORK)


def _raise_for_status(url: str, response: "requests.Response") -> None:
    status = response.status_code
    if status < 300:
        return
    error: type[Dsv4Error] = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError}.get(status, NetworkError)
    code = response.headers.get("X-Error-Code", "")
    step = {
        NotAllowedError: "set HF_TOKEN to a token that may read it",
        NotFoundError: "check the name and the revision",
    }.get(error, _CHECK_NETWORK)
    raise error(f"{shown(url)}: the server answers {status}{f' ({code})' if code else ''}", step)


def _json(url: str, response: "requests.Response") -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NetworkError(f"{shown(url)}: the answer is no JSON object", "check what listens there")
    return answer


def _refuse_other_size(url: str, response: "requests.Response", size: int | None) -> None:
    length = response.headers.get("Content-Length", "")
    if size is not None and length.isdecimal() and int(length) != size:
        raise IntegrityError(
            f"{shown(url)}: the server sends {length} bytes, {size} were promised",
            "run it again later, or pin another revision",
        )


def _receive(response: "requests.Response", partial: Path, hasher: Hasher, advance: Advance) -> Digests:
    with partial.open("wb") as file:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            hasher.update(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return hasher.digests()


def _refuse_other_bytes(url: str, digests: Digests, size: int | None, sha256: str | None) -> None:
    problem = ""
    if size is not None and digests.size != size:
        problem = f"{digests.size} bytes came, {size} were promised"
    elif sha256 and digests.sha256 != sha256:
        problem = f"sha256 is {digests.sha256}, {sha256} was promised"
    if problem:
        raise IntegrityError(
            f"{shown(url)}: {problem}", "run it again; if it stays, the server or a proxy on the way is broken"
        )
