"""One file of a run: its bytes that are there, and the two ways by which they come."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from dsv4_stack.errors import NoSpaceError
from dsv4_stack.guest import digests
from dsv4_stack.guest.digests import Advance, Digests
from dsv4_stack.guest.download.download import Download
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.download.partial import Partial
from dsv4_stack.guest.files import writing


@dataclass(kw_only=True)
class Job:
    """`connections` bring it now; `failures` times it was whole and not the promised bytes.

    `begun_otherwise`: an earlier run has brought more of it by another way than plain HTTP. `comes_otherwise`: so does
    this one, `otherwise` bytes by now.
    """

    download: Download
    partial: Partial
    connections: int = 0
    failures: int = 0
    begun_otherwise: bool = False
    comes_otherwise: bool = False
    otherwise: int = 0
    is_over: bool = False

    @property
    def there(self) -> int:
        """Bytes of it that are on the disk."""
        size = self.download.size
        return size if self.is_over else size - self.partial.missing + self.otherwise

    def go_the_other_way(self, advance: Advance, retreat: Callable[[], None]) -> None:
        """What came by plain HTTP is kept until the other way has brought something, or finds no room beside it.

        `retreat` is called where it is given up. Raises what `advance` and the other way do.
        """
        otherwise = self.download.otherwise
        assert otherwise  # noqa: S101 - else nothing is refused in this way

        def come(count: int) -> None:
            if count and not self.comes_otherwise:
                self._give_way(retreat)
            self.otherwise += count
            advance(count)

        # The run may have ended while another file had its turn.
        come(0)
        try:
            otherwise(self.download.target, come)
        except NoSpaceError:
            # It may have been as fast as to find the disk full of what just gave way to it, so once more.
            self._give_way(retreat)
            otherwise(self.download.target, come)

    def _give_way(self, retreat: Callable[[], None]) -> None:
        self.comes_otherwise, self.otherwise = True, 0
        self.partial.give_way()
        retreat()

    def digests_on_disk(self) -> Digests:
        """Of what the other way has brought; it is on the disk by then."""
        target = self.download.target
        with writing(target), target.open("rb") as file:
            os.fsync(file.fileno())
        return digests.of_file(target, git=not self.download.sha256)


def open_job(download: Download, limits: Limits) -> Job:
    """With what earlier runs have left of it."""
    partial = Partial(
        download.target,
        download.identity,
        download.size,
        by_git=not download.sha256,
        limits=limits,
        watch=download.watch,
    )
    return Job(download=download, partial=partial, begun_otherwise=download.otherwise_there > partial.resumed)
