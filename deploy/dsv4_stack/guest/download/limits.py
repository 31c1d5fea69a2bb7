"""How many connections, and how long to be patient."""

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Times are in seconds, sizes in bytes.

    `jobs` are the connections in all. One that brings less than `trickle` within `stall_s` is opened anew; where all of
    them together bring less than `progress` within `patience_s`, the run ends. A request asks for a `segment` at most.
    Every `sync` bytes of a file are made to outlive a power cut.

    A run begins with `first_jobs` connections, and doubles them as long as each brings less than `plenty` bytes per
    second: on a fast line more of them only take turns. It opens none within `calm_s` of a server's word that it is too
    busy. Bodies are read in blocks that take `buffers` together.
    """

    jobs: int = 24
    first_jobs: int = 4
    plenty: int = 64 * MIB
    calm_s: float = 60.0
    connect_s: float = 10.0
    stall_s: float = 20.0
    trickle: int = 64 << 10
    patience_s: float = 600.0
    progress: int = MIB
    segment: int = 64 * MIB
    least_segment: int = 4 * MIB
    block: int = MIB
    least_block: int = 128 << 10
    buffers: int = 4 * MIB
    sync: int = 256 * MIB
    backoff_s: float = 0.5
    backoff_most_s: float = 30.0

    def segment_of(self, size: int) -> int:
        """An eighth of a small file, so that it too comes over several connections."""
        return max(min(self.segment, size // 8), min(self.segment, self.least_segment))

    def block_of(self, connections: int) -> int:
        """What one of so many connections reads at once."""
        return max(min(self.block, self.least_block), min(self.block, self.buffers // max(1, connections)))

    def backoff(self, failures: int) -> float:
        """A random wait that doubles with each failure in a row, so that many clients do not come back at once.

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("full jitter")
        """
        import random  # noqa: PLC0415 - a start that finds all in its place needs no chance

        most = min(self.backoff_most_s, self.backoff_s * 2 ** min(failures - 1, 16))
        return random.uniform(most / 10, most)  # noqa: S311 - no secret


DEFAULT: Final = Limits()
