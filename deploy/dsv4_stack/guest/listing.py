"""The Hub's listing of a repository, asked for by a process of its own.

The Hub's client costs 30 MiB that would stay with us through hours of downloading, and a name server that does not
answer holds whoever asks it for as long as it likes; a process can be ended.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from dsv4_stack.errors import Dsv4Error, NetworkError, of_exit_code
from dsv4_stack.guest import access, http
from dsv4_stack.guest.download.limits import Limits
from dsv4_stack.guest.hub import RemoteFile, Snapshot

ANSWER_S: Final = 120.0
ATTEMPTS: Final = 100
"""More than anybody's patience takes."""


def listing(repo: str, revision: str, limits: Limits, note: Callable[[str], None]) -> Snapshot:
    """As `hub.snapshot`, tried again while the network fails, but not for longer than the limits' patience.

    A Hub that says how long to wait is not asked before that.
    `note` is told why. Raises as `hub.snapshot` does.
    """
    access.refuse_offline(
        f"{repo}@{revision}", "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, or run: dsv4 lock, before you go offline"
    )
    deadline = time.monotonic() + limits.patience_s
    for failures in itertools.count(1):
        try:
            return ask(repo, revision, min(ANSWER_S, max(1.0, deadline - time.monotonic())))
        except NetworkError as error:
            wait_s = error.wait_s + limits.backoff(failures)
            if failures >= ATTEMPTS or time.monotonic() + wait_s >= deadline:
                raise
            note(f"{error.message}; again in {wait_s:.1f} s")
            time.sleep(wait_s)
    raise AssertionError


def ask(repo: str, revision: str, timeout_s: float = ANSWER_S) -> Snapshot:
    """Once. Raises as `hub.snapshot`, and NetworkError where no answer comes in time."""
    # -P: whatever lies in the folder where we were started is no code of ours.
    command = [sys.executable, "-P", "-m", "dsv4_stack.guest.listing", repo, revision]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
            timeout=timeout_s,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise NetworkError(
            f"{http.shown(access.endpoint())}: no listing of {repo} in {timeout_s:.0f} s",
            "check the network and $HF_ENDPOINT, then run it again",
        ) from None
    return parse(done.stdout, done.returncode)


def parse(content: bytes, code: int) -> Snapshot:
    """What the process wrote. Raises the error that it met."""
    try:
        answer = json.loads(content)
        if code:
            error = of_exit_code(code)(answer["message"], answer["next_step"])
            if isinstance(error, NetworkError):
                error.wait_s = float(answer["wait_s"])
            raise error
        files = tuple(RemoteFile(**file) for file in answer.pop("files"))
        return Snapshot(**answer, files=files)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Dsv4Error(f"the listing ended with exit code {code} and said nothing", "see above") from error


def main(repo: str, revision: str) -> int:
    """Print the listing as JSON, or the error. The exit code is the error's."""
    from dsv4_stack.guest import hub  # noqa: PLC0415 - only this process needs the Hub's client

    try:
        print(json.dumps(asdict(hub.snapshot(repo, revision))))
    except Dsv4Error as error:
        wait_s = error.wait_s if isinstance(error, NetworkError) else 0.0
        print(json.dumps({"message": error.message, "next_step": error.next_step, "wait_s": wait_s}))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
