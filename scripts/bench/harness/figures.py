"""All figures of one run, the bars that they are held against, and the text that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import cold, resume
from harness.bars import Bar, as_table
from harness.cold import Figures
from harness.contenders import ARIA2C, CURL, CURL_THEN_SHA256, DSV4, DSV4_WITHOUT_FSYNC, HF, Contender
from harness.deep import Deep
from harness.resume import Resumed
from harness.tables import MISSING, number, table, times
from harness.warm import Contained, Warm

IN_MEMORY = (DSV4, CURL, CURL_THEN_SHA256, HF, ARIA2C)
ON_DISK = (DSV4, DSV4_WITHOUT_FSYNC, CURL, CURL_THEN_SHA256, HF, ARIA2C)
PACED = (DSV4, CURL, HF, ARIA2C)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`memory` and `disk` are cold runs to a tmpfs and to a disk, `paced` ones over connections that are slow; `real`
    are ours, over such ones, of shards with as many tensors as a real checkpoint's. `start_s` seconds take as many
    shards of a KiB.

    `contained` is empty, and `why_not_contained` says why, where there is no container to measure in; its keys say
    how the volume was mounted. `sizes` describes the files of each part in words.
    """

    memory: Mapping[Contender, Figures]
    disk: Mapping[Contender, Figures]
    paced: Mapping[Contender, Figures]
    real: Figures
    start_s: float
    resumed: Mapping[Contender, list[Resumed]]
    warm: Warm
    contained: Mapping[str, Contained]
    why_not_contained: str
    deep: Deep
    sizes: Mapping[str, str]
    cores: int


def bars(found: Measured) -> list[Bar]:
    """What the materializer promises, with what was measured."""
    deep = Bar(what="--deep: bytes/s / openssl speed", measured=found.deep.share, limit=0.8, at_least=True)
    return [*_cold_bars(found), *_resume_bars(found.resumed[DSV4]), *_warm_bars(found), deep]


def _cold_bars(found: Measured) -> list[Bar]:
    memory, disk = found.memory[DSV4], found.disk[DSV4]
    curl_s = found.memory[CURL].wall_s if CURL in found.memory else None
    curl_synced_s = found.disk[CURL].synced_s if CURL in found.disk else None
    verified_s = found.memory[CURL_THEN_SHA256].wall_s if CURL_THEN_SHA256 in found.memory else None
    least_s = floor_s(found)
    slow = found.paced[HF].wall_s / found.paced[DSV4].wall_s
    most_bytes = max(each.rss_bytes for each in (memory, disk, found.paced[DSV4], found.real))
    return [
        Bar(what="cold, tmpfs: wall / curl", measured=curl_s and memory.wall_s / curl_s, limit=1),
        Bar(
            what="cold, disk with sync: wall / curl", measured=curl_synced_s and disk.synced_s / curl_synced_s, limit=1
        ),
        Bar(what="cold, tmpfs: wall / curl with openssl", measured=verified_s and memory.wall_s / verified_s, limit=1),
        Bar(
            what="cold, tmpfs: wall / what the cores need",
            measured=least_s and memory.wall_s / least_s,
            limit=1.2,
        ),
        Bar(what="cold: CPU-s/GB", measured=memory.cpu_s_per_gb, limit=1.7),
        Bar(what="cold: peak memory", measured=most_bytes / 2**20, limit=64, unit=" MiB", digits=0),
        Bar(what="cold: on disk at the peak / needed", measured=max(memory.peak, disk.peak), limit=1.01),
        Bar(what="cold: on disk at the end / needed", measured=max(memory.left, disk.left), limit=1),
        Bar(what="slow connections: wall of hf / ours", measured=slow, limit=2, at_least=True),
    ]


def _resume_bars(runs: list[Resumed]) -> list[Bar]:
    return [
        Bar(what="resume: sent / missing", measured=max(run.again for run in runs), limit=1.02),
        Bar(what="resume: orphan bytes", measured=max(run.orphans for run in runs), limit=0, digits=0),
    ]


def _warm_bars(found: Measured) -> list[Bar]:
    over: dict[str, float | None] = {f", {how}": run.over_s for how, run in found.contained.items()}
    return [
        *(
            Bar(what=f"warm, container{how}: s over `true`", measured=over_s, limit=0.05, digits=3)
            for how, over_s in (over or {"": None}).items()
        ),
        Bar(what="warm: requests", measured=found.warm.requests, limit=0, digits=0),
        Bar(what="warm: shards read", measured=found.warm.shards_read, limit=0, digits=0),
    ]


def as_markdown(runs: Sequence[Measured], made_with: str, command: str) -> str:
    """Every table of the last run, the bars of all, with what they were made with and how to make them again."""
    found = runs[-1]
    sections = {
        f"Cold, to a tmpfs: {found.sizes['cold']}": cold.as_table(IN_MEMORY, found.memory, CURL) + _limit(found),
        f"Cold, to a disk: {found.sizes['cold']}": cold.as_table(ON_DISK, found.disk, CURL) + _fsync(found.disk),
        f"Cold, slow connections: {found.sizes['paced']}": cold.as_table(PACED, found.paced, CURL) + _real(found),
        f"Resume after kill -9: {found.sizes['resume']}": resume.as_table(found.resumed),
        f"Warm: {found.sizes['warm']}": _warm(found),
        f"--deep: {found.sizes['cold']}": _deep(found.deep),
        "Bars": as_table([bars(each) for each in runs]),
    }
    tables = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections.items())
    return f"Made with `{command}`. {made_with}\n\n{tables}\n"


def floor_s(found: Measured) -> float | None:
    """Seconds in which the machine's cores can do what curl and the Hub did, and a sha256 of the bytes, after a start.

    None where it was not measured.
    """
    curl, openssl = found.memory.get(CURL), found.deep.openssl_bytes_per_s
    if curl is None or not openssl:
        return None
    hash_cpu_s_per_gb = found.cores / (openssl / 1e9)
    cpu_s_per_gb = curl.cpu_s_per_gb + curl.hub_cpu_s_per_gb + hash_cpu_s_per_gb
    return cpu_s_per_gb * curl.needed / 1e9 / found.cores + found.start_s


def _limit(found: Measured) -> str:
    least_s, curl = floor_s(found), found.memory.get(CURL)
    if least_s is None or curl is None:
        return ""
    busy = (curl.cpu_s_per_gb + curl.hub_cpu_s_per_gb) * curl.needed / 1e9 / (curl.wall_s * found.cores)
    least, ours = times(least_s / curl.wall_s), times(found.memory[DSV4].wall_s / least_s)
    work_s = least_s - found.start_s
    return (
        f"\n\nThe limit: while curl ran, it and the Hub kept {busy:.0%} of {found.cores} cores busy. With a sha256 of "
        f"the bytes beside it, at openssl's speed, that work takes {found.cores} cores {work_s:.2f} s. "
        f"Before it come {found.start_s:.2f} s, in which as many shards of a KiB are there: Python's start, and "
        f"the Hub asked for its list. Together that is {least} of curl's time; dsv4 takes {ours} of it."
    )


def _fsync(disk: Mapping[Contender, Figures]) -> str:
    with_it, without = disk[DSV4], disk[DSV4_WITHOUT_FSYNC]
    return (
        f"\n\nfsync costs {with_it.wall_s - without.wall_s:+.2f} s until the process ends, and "
        f"{with_it.synced_s - without.synced_s:+.2f} s of {with_it.synced_s:.2f} s until the disk has it all."
    )


def _real(found: Measured) -> str:
    return (
        f"\n\nOf {found.sizes['real']}, at the same pace, dsv4 took {found.real.rss_bytes / 2**20:.0f} MiB of memory."
    )


def _warm(found: Measured) -> str:
    warm = found.warm
    rows = [
        ["on this machine", number(warm.start_s, digits=3), "`python -c pass`", number(warm.pass_s, digits=3)],
        *(
            [f"container, {how}", number(run.check_s, digits=3), "`true`", number(run.true_s, digits=3)]
            for how, run in found.contained.items()
        ),
    ]
    shards = MISSING if warm.shards_read is None else str(warm.shards_read)
    facts = (
        f"Requests: {warm.requests}. Shards read: {shards}. "
        f"Read in all: {warm.read_bytes / 2**20:.1f} MiB, Python's own modules included."
    )
    reason = f"\n\nNot measured in a container: {found.why_not_contained}." if found.why_not_contained else ""
    return f"{table(['', 's', 'beside', 's'], rows)}\n\n{facts}{reason}"


def _deep(deep: Deep) -> str:
    openssl = deep.openssl_bytes_per_s
    rows = [
        ["materialize --deep", number(deep.bytes_per_s / 1e9), times(deep.share)],
        [
            "the same, its start counted",
            number(deep.whole_bytes_per_s / 1e9),
            times(openssl and deep.whole_bytes_per_s / openssl),
        ],
        ["openssl speed -evp sha256, all cores", number(openssl and openssl / 1e9), times(openssl and 1.0)],
    ]
    return table(["", "GB/s", "x openssl"], rows)
