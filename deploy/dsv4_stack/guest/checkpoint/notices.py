"""What a run that wants a directory says of the others: whom it waits for, and from whom it took the directory over."""

from pathlib import Path

from dsv4_stack.guest.checkpoint.claims import Claim
from dsv4_stack.guest.checkpoint.progress import Progress


class Notices:
    """About `folder`; each thing is said once."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._told: str | None = None
        self._has_looked = False

    def waits_for(self, claim: Claim | None) -> None:
        """At every look. Whose claim cannot be read at the first may be writing it."""
        if claim and claim.nonce != self._told:
            self._told = claim.nonce
            self._say("waiting", f"another run works on {self._folder}: {claim}; waiting for it", claim)
        elif not claim and self._told is None and self._has_looked:
            self._told = ""
            self._say("waiting", f"another run works on {self._folder}; waiting for it", None)
        self._has_looked = True

    def takes_over(self, claim: Claim | None, death: str) -> None:
        whom = claim or "a run that did not come to say who it is"
        self._say("takeover", f"{self._folder} is taken over from {whom}: {death}", claim, reason=death)

    def _say(self, event: str, text: str, claim: Claim | None, **fields: object) -> None:
        whom = {"host": claim.host, "pid": claim.pid, "since": claim.since} if claim else {}
        self._progress.say(event, text, folder=str(self._folder), **whom, **fields)
