"""A moment of a run as a line of a log, as fields for programs, and as a screen. All of it is ASCII."""

import re
from collections.abc import Iterator
from typing import Final

from dsv4_stack.guest.checkpoint.tally import Moving, Snapshot
from dsv4_stack.guest.files import amount, count

PREFIX: Final = "materialize: "
_PROGRESS: Final = re.compile(rf"{PREFIX}\d+/\d+ files?, ")
_MOST_FILES: Final = 8
_BAR_LEAST: Final = 10
_BAR_MOST: Final = 30
_NAME_LEAST: Final = 8


def is_progress(text: str) -> bool:
    """Whether a line of a log says only how far a run is."""
    return bool(_PROGRESS.match(text))


def fitted(text: str, width: int) -> str:
    """A progress line without the parts at its end for which there is no room."""
    while len(text) > width and ", " in text:
        text = text.rpartition(", ")[0]
    return text[:width]


def line(now: Snapshot) -> str:
    """`3/9 files, 61.2/159.0 GiB (38 %), 410 MiB/s, 4m03s left, 12.0 GiB reused`."""
    parts = [_files(now), f"{portion(now.done, now.size)} ({_percent(now)})", *_pace(now), *_reused(now)]
    return ", ".join(parts)


def summary(whole: Snapshot) -> str:
    """`9/9 files, 159.0/159.0 GiB (100 %), 410 MiB/s, took 6m37s, 12.0 GiB reused`."""
    parts = [_files(whole), f"{portion(whole.done, whole.size)} ({_percent(whole)})", speed(whole.rate)]
    return ", ".join([*parts, f"took {duration(whole.elapsed_s)}", *_reused(whole)])


def fields(now: Snapshot) -> dict[str, object]:
    """Sizes in bytes, `rate` in bytes per second, times in seconds; `eta_s` is None while there is no rate."""
    return {
        "files": now.files,
        "all_files": now.all_files,
        "bytes": now.done,
        "all_bytes": now.size,
        "reused_bytes": now.reused,
        "rate": round(now.rate),
        "eta_s": None if now.eta_s is None else round(now.eta_s, 1),
        "stalled_s": round(now.stalled_s, 1),
        "in_progress": {file.path: {"bytes": file.done, "size": file.size} for file in now.moving},
    }


def screen(now: Snapshot, columns: int, rows: int) -> list[str]:
    """A bar for all and a line for each moving file, the largest first; narrower and lower than the terminal.

    The last column stays free because some terminals wrap when it is written, the last row because the cursor is there.
    """
    width = max(columns - 1, 0)
    files = sorted(now.moving, key=lambda file: (-file.size, file.path))[:_MOST_FILES]
    names = [ascii(file.path)[1:-1] for file in files]
    longest = max(map(len, names), default=0)
    lines = [_overall(now, width)]
    lines += [_file(name, file, longest, width) for name, file in zip(names, files, strict=True)]
    return [line[:width] for line in lines[: max(rows - 1, 0)]]


def duration(seconds: float) -> str:
    """`6m12s`, `1h02m`, `45s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 60}m{whole % 60:02}s" if whole >= 60 else f"{whole}s"


def portion(done: int, size: int) -> str:
    """`0/159.0 GiB`, `512.0 MiB/159.0 GiB`, `61.2/159.0 GiB`."""
    whole = amount(size)
    if not done:
        return f"0/{whole}"
    number, unit = amount(done).split()
    return f"{number}/{whole}" if whole.endswith(f" {unit}") else f"{number} {unit}/{whole}"


def speed(rate: float) -> str:
    """`410 MiB/s`, `12.3 MiB/s`: no more digits than the eye can follow."""
    number, unit = amount(int(rate)).split()
    return f"{number if float(number) < 100 else round(float(number))} {unit}/s"


def shortened(name: str, width: int) -> str:
    """The name, or its start and its end around three dots, in at most `width` characters."""
    if len(name) <= width:
        return name
    kept = max(width - 3, 0)
    tail = kept // 2
    return f"{name[: kept - tail]}...{name[len(name) - tail :]}"[:width]


def _files(now: Snapshot) -> str:
    return f"{now.files}/{count(now.all_files)}"


def _reused(now: Snapshot) -> list[str]:
    return [f"{amount(now.reused)} reused"] if now.reused else []


def _percent(of: Snapshot | Moving) -> str:
    """Rounded down, so that 100 % means all."""
    return f"{of.done * 100 // of.size if of.size else 100} %"


def _pace(now: Snapshot) -> Iterator[str]:
    if now.stalled_s:
        yield f"stalled for {duration(now.stalled_s)}"
        return
    yield speed(now.rate)
    if now.eta_s:
        yield f"{duration(now.eta_s)} left"


def _overall(now: Snapshot, width: int) -> str:
    """As wide a bar as there is room for, then what there is room for beside the shortest one."""
    first, *others = [f"{_percent(now):>5}", portion(now.done, now.size), *reversed([*_pace(now)]), _files(now)]
    text = f"  {first}"
    for other in [*others, *_reused(now)]:
        if len(text) + 2 + len(other) + _BAR_LEAST + 2 > width:
            break
        text += f"  {other}"
    cells = min(width - len(text) - 2, _BAR_MOST)
    if cells < 1:
        return text.strip()
    full = now.done * cells // now.size if now.size else cells
    return f"[{'#' * full}{' ' * (cells - full)}]{text}"


def _file(name: str, file: Moving, longest: int, width: int) -> str:
    """Indented: a name in a column `longest` wide or as wide as there is room for, its percent, its rate."""
    end = f"  {_percent(file):>5}  {speed(file.rate):>12}"
    if width - 2 - len(end) < _NAME_LEAST:
        end = end[:7]
    room = max(min(longest, width - 2 - len(end)), 0)
    return f"  {shortened(name, room):{room}}{end}"
