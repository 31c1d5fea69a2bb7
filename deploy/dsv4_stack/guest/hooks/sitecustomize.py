"""Imported by every Python process of the engine: on SIGUSR2 each writes its stacks to $DSV4_STACKS/<pid>.

py-spy does that too, but is in no image, and wants a capability that the container does not have.
"""

import faulthandler
import os
import signal
from pathlib import Path

FOLDER = os.environ.get("DSV4_STACKS", "")


def register() -> None:
    """Of this process. Forked ones call it again, since each has a file of its own."""
    try:
        file = (Path(FOLDER) / str(os.getpid())).open("w")
    except OSError:
        return
    faulthandler.register(signal.SIGUSR2, file=file, all_threads=True, chain=False)


if FOLDER:
    register()
    os.register_at_fork(after_in_child=register)
