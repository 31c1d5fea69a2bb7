"""What scripts/bench/materialize.py makes of what it measured: ratios, bars, tables, the place in the document."""

from dataclasses import replace
from pathlib import Path

import pytest
from harness import bars, figures, tables
from harness.bars import Bar, Verdict
from harness.cold import Figures, Run
from harness.contenders import ARIA2C, CURL, CURL_THEN_SHA256, DSV4, DSV4_WITHOUT_FSYNC, HF, Contender
from harness.deep import Deep
from harness.figures import Measured
from harness.resume import Resumed
from harness.warm import Contained, Warm, image_of_tree

from dsv4_stack import assets

GB = 10**9
MIB = 1 << 20


def ran(wall_s: float, *, cpu_s: float = 1.5, synced_s: float = 0.25, rss: int = 40 * MIB, peak: int = GB) -> Run:
    return Run(
        wall_s=wall_s,
        synced_s=wall_s + synced_s,
        cpu_s=cpu_s,
        hub_cpu_s=0.8,
        rss_bytes=rss,
        peak_bytes=peak,
        left_bytes=GB,
    )


def found(**walls: tuple[float, ...]) -> dict[Contender, Figures]:
    names = {"dsv4": DSV4, "no_fsync": DSV4_WITHOUT_FSYNC, "curl": CURL, "hashed": CURL_THEN_SHA256, "hf": HF}
    return {
        names[name]: Figures(contender=names[name], runs=tuple(ran(wall_s) for wall_s in runs), needed=GB)
        for name, runs in walls.items()
    }


MEASURED = Measured(
    memory=found(dsv4=(1.5, 9.0, 1.0), curl=(2.0,), hashed=(3.0,), hf=(5.0,)),
    disk=found(dsv4=(3.75,), no_fsync=(3.0,), curl=(3.75,), hashed=(6.0,), hf=(8.0,)),
    paced=found(dsv4=(2.0,), curl=(4.0,), hf=(5.0,)),
    real=Figures(contender=DSV4, runs=(ran(3.0, rss=60 * MIB),), needed=GB),
    start_s=0.3,
    resumed={
        DSV4: [
            Resumed(needed=1000, written=600, sent=404, orphans=0),
            Resumed(needed=1000, written=500, sent=500, orphans=0),
        ],
        HF: [Resumed(needed=1000, written=600, sent=1000, orphans=600)],
    },
    warm=Warm(start_s=0.045, pass_s=0.010, requests=0, read_bytes=2 * MIB, shards_read=0),
    contained={
        "read-write": Contained(check_s=0.240, true_s=0.200),
        "read-only": Contained(check_s=0.260, true_s=0.200),
    },
    why_not_contained="",
    deep=Deep(bytes_per_s=2.8 * GB, whole_bytes_per_s=2.5 * GB, openssl_bytes_per_s=3.4 * GB),
    sizes={
        "cold": "8 shards",
        "paced": "8 small shards",
        "real": "4 shards that have 9 tensors",
        "resume": "8 shards, killed",
        "warm": "46 shards",
    },
    cores=2,
)

TEXT = """\
Made with `bench --write`. 2026-01-01; a machine.

### Cold, to a tmpfs: 8 shards

|  | s | x curl -Z | s with sync | x | CPU-s/GB | Hub's | RSS MiB | disk, peak | left |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| dsv4 materialize | 1.50 | 0.75x | 1.75 | 0.78x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| curl -Z, 8 connections | 2.00 | 1.00x | 2.25 | 1.00x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| curl -Z, then openssl dgst | 3.00 | 1.50x | 3.25 | 1.44x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| hf download | 5.00 | 2.50x | 5.25 | 2.33x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| aria2c -j8 -x4 | not installed |  |  |  |  |  |  |  |  |

The limit: while curl ran, it and the Hub kept 57% of 2 cores busy. With a sha256 of the bytes beside it, at openssl's \
speed, that work takes 2 cores 1.44 s. Before it come 0.30 s, in which as many shards of a KiB are there: Python's \
start, and the Hub asked for its list. Together that is 0.87x of curl's time; dsv4 takes 0.86x of it.

### Cold, to a disk: 8 shards

|  | s | x curl -Z | s with sync | x | CPU-s/GB | Hub's | RSS MiB | disk, peak | left |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| dsv4 materialize | 3.75 | 1.00x | 4.00 | 1.00x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| dsv4 materialize, fsync switched off | 3.00 | 0.80x | 3.25 | 0.81x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| curl -Z, 8 connections | 3.75 | 1.00x | 4.00 | 1.00x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| curl -Z, then openssl dgst | 6.00 | 1.60x | 6.25 | 1.56x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| hf download | 8.00 | 2.13x | 8.25 | 2.06x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| aria2c -j8 -x4 | not installed |  |  |  |  |  |  |  |  |

fsync costs +0.75 s until the process ends, and +0.75 s of 4.00 s until the disk has it all.

### Cold, slow connections: 8 small shards

|  | s | x curl -Z | s with sync | x | CPU-s/GB | Hub's | RSS MiB | disk, peak | left |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| dsv4 materialize | 2.00 | 0.50x | 2.25 | 0.53x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| curl -Z, 8 connections | 4.00 | 1.00x | 4.25 | 1.00x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| hf download | 5.00 | 1.25x | 5.25 | 1.24x | 1.50 | 0.80 | 40 | 1.00x | 1.00x |
| aria2c -j8 -x4 | not installed |  |  |  |  |  |  |  |  |

Of 4 shards that have 9 tensors, at the same pace, dsv4 took 60 MiB of memory.

### Resume after kill -9: 8 shards, killed

|  | written when killed | sent by the next run | per missing byte | orphans left |
| --- | --- | --- | --- | --- |
| dsv4 materialize | 0.55x | 0.45x | 1.00x | 0.00x |
| hf download | 0.60x | 1.00x | 2.50x | 0.60x |

### Warm: 46 shards

|  | s | beside | s |
| --- | --- | --- | --- |
| on this machine | 0.045 | `python -c pass` | 0.010 |
| container, read-write | 0.240 | `true` | 0.200 |
| container, read-only | 0.260 | `true` | 0.200 |

Requests: 0. Shards read: 0. Read in all: 2.0 MiB, Python's own modules included.

### --deep: 8 shards

|  | GB/s | x openssl |
| --- | --- | --- |
| materialize --deep | 2.80 | 0.82x |
| the same, its start counted | 2.50 | 0.74x |
| openssl speed -evp sha256, all cores | 3.40 | 1.00x |

### Bars

|  | measured | bar |  |
| --- | --- | --- | --- |
| cold, tmpfs: wall / curl | 0.75 | at most 1.00 | holds |
| cold, disk with sync: wall / curl | 1.00 | at most 1.00 | holds |
| cold, tmpfs: wall / curl with openssl | 0.50 | at most 1.00 | holds |
| cold, tmpfs: wall / what the cores need | 0.86 | at most 1.20 | holds |
| cold: CPU-s/GB | 1.50 | at most 1.70 | holds |
| cold: peak memory | 60 MiB | at most 64 MiB | holds |
| cold: on disk at the peak / needed | 1.00 | at most 1.01 | holds |
| cold: on disk at the end / needed | 1.00 | at most 1.00 | holds |
| slow connections: wall of hf / ours | 2.50 | at least 2.00 | holds |
| resume: sent / missing | 1.01 | at most 1.02 | holds |
| resume: orphan bytes | 0 | at most 0 | holds |
| warm, container, read-write: s over `true` | 0.040 | at most 0.050 | holds |
| warm, container, read-only: s over `true` | 0.060 | at most 0.050 | MISSED |
| warm: requests | 0 | at most 0 | holds |
| warm: shards read | 0 | at most 0 | holds |
| --deep: bytes/s / openssl speed | 0.82 | at least 0.80 | holds |
"""


def test_all_tables_of_a_run() -> None:
    assert figures.as_markdown([MEASURED], "2026-01-01; a machine.", "bench --write") == TEXT


def test_a_bar_has_to_hold_in_every_run() -> None:
    text = figures.as_markdown([MEASURED, replace(MEASURED, warm=replace(MEASURED.warm, requests=1))], "", "")
    bars_table = text.partition("### Bars\n\n")[2].splitlines()
    assert bars_table[0] == "|  | run 1 | run 2 | bar |  |"
    assert bars_table[2] == "| cold, tmpfs: wall / curl | 0.75 | 0.75 | at most 1.00 | holds |"
    assert "| warm: requests | 0 | 1 | at most 0 | MISSED |" in bars_table
    assert "| warm, container, read-only: s over `true` | 0.060 | 0.060 | at most 0.050 | MISSED |" in bars_table


def test_what_is_not_there_is_not_measured() -> None:
    bare = replace(
        MEASURED,
        memory=found(dsv4=(1.5,), hf=(5.0,)),
        warm=replace(MEASURED.warm, shards_read=None),
        contained={},
        why_not_contained="no docker",
        deep=replace(MEASURED.deep, openssl_bytes_per_s=None),
    )
    assert [str(bar) for bar in figures.bars(bare) if bar.verdict is Verdict.UNKNOWN] == [
        "not measured: cold, tmpfs: wall / curl: nothing, at most 1.00",
        "not measured: cold, tmpfs: wall / curl with openssl: nothing, at most 1.00",
        "not measured: cold, tmpfs: wall / what the cores need: nothing, at most 1.20",
        "not measured: warm, container: s over `true`: nothing, at most 0.050",
        "not measured: warm: shards read: nothing, at most 0",
        "not measured: --deep: bytes/s / openssl speed: nothing, at least 0.80",
    ]
    text = figures.as_markdown([bare], "", "")
    assert "| curl -Z, 8 connections | not installed |  |  |  |  |  |  |  |  |\n" in text
    assert text.count("\n\nNot measured in a container: no docker.\n") == 1
    assert text.count("| openssl speed -evp sha256, all cores | — | — |\n") == 1
    assert "The limit" not in text
    assert not bars.missed(figures.bars(bare))


@pytest.mark.parametrize("part", ["memory", "disk", "paced", "real"])
def test_memory_is_judged_at_its_worst(part: str) -> None:
    worse = Figures(contender=DSV4, runs=(ran(1.0, rss=70 * MIB),), needed=GB)
    changed = worse if part == "real" else {**getattr(MEASURED, part), DSV4: worse}
    measured = replace(MEASURED, **{part: changed})
    assert "MISSED: cold: peak memory: 70 MiB, at most 64 MiB" in map(str, figures.bars(measured))


@pytest.mark.parametrize(
    ("measured", "at_least", "verdict"),
    [
        (1.004, False, Verdict.HOLDS),
        (1.006, False, Verdict.MISSED),
        (0.996, True, Verdict.HOLDS),
        (0.994, True, Verdict.MISSED),
        (None, False, Verdict.UNKNOWN),
        (None, True, Verdict.UNKNOWN),
    ],
)
def test_a_bar_is_judged_as_it_is_printed(measured: float | None, at_least: bool, verdict: Verdict) -> None:  # noqa: FBT001
    bar = Bar(what="x", measured=measured, limit=1, at_least=at_least)
    assert bar.verdict is verdict
    assert bars.missed([bar]) is (verdict is Verdict.MISSED)


def test_memory_and_disk_count_at_their_worst_and_time_at_its_median() -> None:
    runs = (
        ran(1.0, cpu_s=1, rss=10, peak=GB),
        ran(2.0, cpu_s=3, rss=30, peak=2 * GB),
        ran(9.0, cpu_s=2, rss=20, peak=GB),
    )
    measured = Figures(contender=DSV4, runs=runs, needed=GB)
    assert (measured.wall_s, measured.synced_s, measured.cpu_s_per_gb) == (2.0, 2.25, 2.0)
    assert (measured.rss_bytes, measured.peak, measured.left) == (30, 2.0, 1.0)


def test_tables_go_between_their_markers() -> None:
    document = "a\n<!-- one: begin, by x -->\nold\n<!-- one: end -->\nb\n<!-- two: begin -->\n<!-- two: end -->\nc\n"
    once = tables.put(document, "one", "new \\1\n")
    assert once == (
        "a\n<!-- one: begin, by x -->\n\nnew \\1\n\n<!-- one: end -->\nb\n<!-- two: begin -->\n<!-- two: end -->\nc\n"
    )
    assert tables.put(once, "one", "new \\1") == once


@pytest.mark.parametrize("name", ["figures", "faults"])
def test_the_document_has_a_place_for_the_tables(name: str) -> None:
    document = (assets.ROOT / "docs/materialize.md").read_text()
    assert tables.put(document, name, "| new |").count(f"-->\n\n| new |\n\n<!-- {name}: end -->\n") == 1


def test_a_document_without_the_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("text\n")
    with pytest.raises(ValueError, match="one pair of markers <!-- one: begin --> and <!-- one: end -->"):
        tables.write(path, "one", "new")
    assert path.read_text() == "text\n"


def test_a_cell_cannot_break_its_table() -> None:
    assert tables.table(["a", "b"], [["x|y", "z"]]) == "| a | b |\n| --- | --- |\n| x\\|y | z |"


def test_sizes_in_mebibytes() -> None:
    assert [tables.mib(size) for size in (None, 0, 300_000, 5 * MIB, 344 * MIB)] == [
        "—",
        "0 MiB",
        "0.3 MiB",
        "5.0 MiB",
        "344 MiB",
    ]


def test_the_image_is_the_one_that_the_tree_renders() -> None:
    name, tag = image_of_tree().split(":")
    assert (name, len(tag), set(tag) <= set("0123456789abcdef")) == ("dsv4-stack/init", 12, True)


def test_a_contender_without_its_program_is_not_there() -> None:
    assert not Contender(name="x", command=ARIA2C.command, program="no-such-program-4711").is_there
    assert DSV4.is_there
