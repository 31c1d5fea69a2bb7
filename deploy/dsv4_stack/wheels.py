"""The Python files of a pinned wheel, each proved by hash, in a cache; a few percent of the wheel are fetched.

What proves what: pins.toml (or dsv4.lock) has the sha256 of the whole wheel and that of the RECORD in it, both of one
download. RECORD has the sha256 of every other file. So a file that is as in a RECORD that is as pinned is the one of
the pinned wheel, whoever sent it. `whole` proves the first step again.
"""

import base64
import csv
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from dsv4_stack.errors import ConfigError, IntegrityError
from dsv4_stack.guest import files, http
from dsv4_stack.releases import Wheel

Say = Callable[[str], None]

# A zip file's directory is at its end; those of vLLM's wheels take up to 0.7 MiB.
_TAIL: Final = 1 << 20
# What lies between two wanted files is fetched with them where it is shorter than a request is worth.
_GAP: Final = 1 << 18
_CONNECTIONS: Final = 6


def cache() -> Path:
    """Where fetched files are kept: $DSV4_CACHE, else ~/.cache/dsv4."""
    return Path(os.environ.get("DSV4_CACHE") or Path.home() / ".cache" / "dsv4")


def tree(wheel: Wheel, say: Say, *, whole: bool = False) -> Path:
    """The directory that holds the wheel's vllm/**/*.py and its metadata, fetched where it is not in the cache.

    Raises ConfigError for an unlocked wheel, IntegrityError, NetworkError, NotFoundError, NoSpaceError.
    """
    if not wheel.sha256 or not wheel.record:
        raise ConfigError(f"{wheel.url} is unlocked: its hash is not known", "run: dsv4 lock")
    folder = cache() / "wheels" / wheel.sha256
    if whole or not _is_proved(folder, wheel):
        say(f"{'fetching all' if whole else 'fetching the Python files'} of {wheel.url}")
        _fill(folder, wheel, whole=whole)
    return folder


def cached(wheel: Wheel) -> Path | None:
    """What `tree` gives where nothing has to be fetched for it, else None."""
    folder = cache() / "wheels" / wheel.sha256
    return folder if wheel.sha256 and wheel.record and _is_proved(folder, wheel) else None


def record_sha256(path: Path) -> str:
    """The sha256 of the RECORD in a wheel. Raises IntegrityError."""
    with _opened(path, str(path)) as archive:
        return hashlib.sha256(archive.read(_record_name(archive, str(path)))).hexdigest()


def remote_record_sha256(url: str) -> str:
    """The same of a wheel that is fetched no further than that; "" where the server sends no parts.

    Raises IntegrityError, NetworkError, NotFoundError.
    """
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "wheel")
        return record_sha256(part) if _fetch_parts(url, part, _is_record) else ""


def _fill(folder: Path, wheel: Wheel, *, whole: bool) -> None:
    with files.writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as name:
            part, beside = Path(name, "wheel"), Path(name, "tree")
            if whole or not _fetch_parts(wheel.url, part, _is_wanted):
                http.download(wheel.url, {}, part, size=None, sha256=wheel.sha256)
            _unpack(part, beside, wheel.url)
            if not _is_proved(beside, wheel):
                raise IntegrityError(
                    f"{wheel.url}: its files are not as pinned", "run it again; if it stays, run it with --whole"
                )
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)


def _unpack(path: Path, folder: Path, shown: str) -> None:
    with _opened(path, shown) as archive:
        try:
            archive.extractall(folder, [name for name in archive.namelist() if _is_wanted(name)])
        except (zipfile.BadZipFile, zlib.error) as error:
            raise IntegrityError(f"{shown}: its files cannot be unpacked: {error}", "run it again") from None


def _fetch_parts(url: str, part: Path, wanted: Callable[[str], bool]) -> bool:
    """Make a file with holes: the wheel's directory and the wanted files where they belong, nothing between them.

    False where the server sends no parts.
    """
    tail = http.part(url, f"-{_TAIL}")
    if tail is None:
        return False
    with part.open("wb") as file:
        file.truncate(tail.size)
        file.seek(tail.size - len(tail.data))
        file.write(tail.data)
    with _opened(part, url) as archive:
        spans = list(_spans(archive.infolist(), archive.start_dir, wanted))
    with ThreadPoolExecutor(_CONNECTIONS) as pool, part.open("r+b") as file:
        for (start, _), data in zip(spans, pool.map(lambda span: _fetch_span(url, *span), spans), strict=True):
            file.seek(start)
            file.write(data)
    return True


def _fetch_span(url: str, start: int, end: int) -> bytes:
    got = http.part(url, f"{start}-{end - 1}")
    if got is None or len(got.data) != end - start:
        raise IntegrityError(f"{url}: the server does not send the bytes {start} to {end}", "run it with --whole")
    return got.data


def _spans(infos: list[zipfile.ZipInfo], end: int, wanted: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    """From where to where the wanted files lie, those with a short gap between them as one; `end` is the last one's."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in ordered[1:]), end]
    spans = [(info.header_offset, stop) for info, stop in zip(ordered, ends, strict=True) if wanted(info.filename)]
    joined = spans[:1]
    for start, stop in spans[1:]:
        if start - joined[-1][1] <= _GAP:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    yield from joined


def _is_wanted(name: str) -> bool:
    return (name.startswith("vllm/") and name.endswith(".py")) or name.endswith(
        (".dist-info/RECORD", ".dist-info/METADATA")
    )


def _is_record(name: str) -> bool:
    return name.endswith(".dist-info/RECORD")


def _is_proved(folder: Path, wheel: Wheel) -> bool:
    """Whether the folder has every wanted file of the wheel, each as RECORD says, and RECORD is as pinned."""
    records = list(folder.glob("*.dist-info/RECORD"))
    if len(records) != 1 or hashlib.sha256(records[0].read_bytes()).hexdigest() != wheel.record:
        return False
    with records[0].open(encoding="utf-8", newline="") as lines:
        return all(_is_as_recorded(folder / name, digest) for name, digest in _wanted_rows(csv.reader(lines)))


def _wanted_rows(rows: Iterable[list[str]]) -> Iterator[tuple[str, str]]:
    return ((row[0], row[1]) for row in rows if _is_wanted(row[0]) and not row[0].endswith("/RECORD"))


def _is_as_recorded(path: Path, digest: str) -> bool:
    """https://packaging.python.org/specifications/recording-installed-packages/#the-record-file"""
    if not path.is_file():
        return False
    found = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
    return digest == f"sha256={found}"


def _opened(path: Path, shown: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"{shown} is no wheel: {error}", "check its URL in pins.toml") from None


def _record_name(archive: zipfile.ZipFile, shown: str) -> str:
    names = [name for name in archive.namelist() if _is_record(name)]
    if len(names) != 1:
        raise IntegrityError(f"{shown} has {len(names)} RECORD files, not one", "check its URL in pins.toml")
    return names[0]
