"""The routes of a Hub, with every fault that it may have.

`/api/models/ORG/NAME[/revision/REV][?blobs=true]`, `/api/models/ORG/NAME/tree/REV`,
`/api/models/ORG/NAME/xet-read-token/REV`, `/ORG/NAME/resolve/REV/PATH`, `/cdn/TOKEN` and `/healthz`; for benchmarks
`/__stats` and `/__faults` too. `main` and the commit itself are the revisions.
"""

import json
import re
import time
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

from dsv4_stack.errors import UsageError
from dsv4_stack.guest.demo import bodies, cdn, faults, ranges
from dsv4_stack.guest.demo.answers import NOT_FOUND, Answers
from dsv4_stack.guest.demo.faults import Refusal
from dsv4_stack.guest.demo.repo import Stored, revision_of

_API: Final = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<verb>revision|tree|xet-read-token)/(?P<revision>[^/]+))?"
)
_RESOLVE: Final = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_LOOK_EVERY_S: Final = 0.05
_TOKEN_S: Final = 3600


class Handler(Answers):
    """One connection."""

    def answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        if self.is_control:
            self._control(url.path, body)
            return
        self._begin()
        if self.command == "POST":
            self._refuse(NOT_FOUND)
        elif url.path == "/healthz":
            self._json({"status": "ok"})
        elif url.path.startswith(cdn.PREFIX):
            self._cdn(url.path, url.query)
        elif match := _RESOLVE.fullmatch(url.path):
            self._resolve(match["repo"], unquote(match["revision"]), unquote(match["path"]))
        elif match := _API.fullmatch(url.path):
            self._api(match["repo"], match["verb"], unquote(match["revision"] or "main"), blobs="blobs=" in url.query)
        else:
            self._refuse(NOT_FOUND)

    def _begin(self) -> None:
        """Note the request; what delays every answer, or prevents it, does so here."""
        server = self.server
        server.requests.append(f"{self.command} {self.path}")
        if server.faults.silent:
            while server.faults.silent:
                bodies.rest(self.connection, _LOOK_EVERY_S)
            raise ConnectionAbortedError
        bodies.rest(self.connection, server.faults.latency_s)

    def _api(self, repo: str, verb: str | None, revision: str, *, blobs: bool) -> None:
        stored = self._stored(repo, revision)
        if stored is None:
            return
        if verb == "tree":
            self._json([file.as_tree_entry() for file in stored])
        elif verb == "xet-read-token":
            self._xet_token()
        else:
            siblings = [file.as_sibling() if blobs else {"rfilename": file.path} for file in stored]
            is_private = repo in self.server.private
            listing = {"id": repo, "modelId": repo, "sha": revision_of(stored), "private": is_private}
            self._json(listing | {"siblings": siblings})

    def _xet_token(self) -> None:
        """Who asks for it here may see the repository; what the storage believes is its own matter."""
        cas, expires = self.server.faults.cas, int(time.time()) + _TOKEN_S
        if not cas:
            self._refuse(NOT_FOUND)
            return
        headers = {"X-Xet-Cas-Url": cas, "X-Xet-Access-Token": "demo", "X-Xet-Token-Expiration": str(expires)}
        self._json({"casUrl": cas, "accessToken": "demo", "exp": expires}, headers)

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        stored = self._stored(repo, revision)
        if stored is None:
            return
        wrong = self.server.faults
        name = f"{repo}/{path}"
        file = next((file for file in stored if file.path == path), None)
        if refusal := wrong.refusal(name) or wrong.refusal(faults.EVERY):
            self._refuse(refusal)
        elif file is None or faults.has(wrong.gone, name):
            self._refuse(Refusal(status=404, code="EntryNotFound", message="Entry not found"))
        elif wrong.redirect:
            where = f"{self.server.url_at(wrong.redirect_host)}{self.server.cdn.grant(name, wrong.redirect)}"
            headers = self._described(repo, file, revision_of(stored)) | file.linked() | {"Location": where}
            self._head(HTTPStatus.FOUND, 0, headers)
        else:
            linked = file.linked() if file.is_lfs else {}
            self._file(name, file, self._described(repo, file, revision_of(stored)) | linked)

    def _stored(self, repo: str, revision: str) -> list[Stored] | None:
        """The repository's files, or None after a refusal was sent."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if refusal := self.server.refusal(repo, token):
            self._refuse(refusal)
            return None
        stored = self.server.visible(repo)
        if revision not in ("main", revision_of(stored)):
            self._refuse(Refusal(status=404, code="RevisionNotFound", message=f"Invalid rev id: {revision}"))
            return None
        return stored

    def _described(self, repo: str, file: Stored, revision: str) -> dict[str, str]:
        """What only the Hub itself says of a file, not where it redirects to."""
        headers = {"X-Repo-Commit": revision}
        if file.xet_hash:
            headers["X-Xet-Hash"] = file.xet_hash
            if self.server.faults.cas:
                where = f"{self.server.url}/api/models/{repo}/xet-read-token/{revision}"
                headers["Link"] = f'<{where}>; rel="xet-auth"'
        return headers

    def _cdn(self, path: str, query: str) -> None:
        """No token is needed here, and none should come."""
        if "Authorization" in self.headers:
            self.server.count_authorized()
        name = self.server.cdn.open(path, query)
        file = self.server.file(name) if name else None
        if name and file:
            self._file(name, file, {})
        else:
            self._deny("Request has expired")

    def _file(self, name: str, file: Stored, headers: dict[str, str]) -> None:
        wrong = self.server.faults
        if faults.has(wrong.xet_only, name) and self.command != "HEAD":
            self._deny("The file is too large for plain HTTP, use xet")
            return
        if faults.has(wrong.page, name):
            self._whole(HTTPStatus.OK, faults.PAGE, {"Content-Type": "text/html"})
            return
        asked = "" if wrong.no_ranges else self.headers.get("Range", "")
        span = ranges.span(asked, file.size)
        if span is None:
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, {"Content-Range": f"bytes */{file.size}"})
            return
        start, end = ranges.another(*span) if asked and faults.has(wrong.wrong_range, name) else span
        headers |= {"ETag": f'"{file.etag}"', "Content-Type": "application/octet-stream"}
        if not wrong.no_ranges:
            headers["Accept-Ranges"] = "bytes"
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        self._head(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK, end - start, headers)
        if self.command != "HEAD":
            self._body(name, file, start, end)

    def _body(self, name: str, file: Stored, start: int, end: int) -> None:
        wrong = self.server.faults
        stall = self._stall(name, end - start)
        if stall is not None:
            end = start + stall
        elif wrong.takes(wrong.cut, wrong.cut_times, name):
            end = start + (end - start) // 2
            self.close_connection = True
        middle = file.size // 2
        is_flipped = start <= middle < end and wrong.takes(wrong.flip, wrong.flip_times, name)
        body = bodies.Body(
            path=self.server.repos.root / name,
            start=start,
            end=end,
            flipped=middle if is_flipped else None,
            rate=wrong.value(wrong.drip, name) or wrong.rate,
        )
        self.wfile.flush()
        bodies.send(body, self.connection, lambda count: self.server.count_sent(name, count))
        if stall is not None:
            while self.server.faults.value(self.server.faults.stall, name) is not None:
                bodies.rest(self.connection, _LOOK_EVERY_S)
            self.close_connection = True

    def _stall(self, name: str, length: int) -> int | None:
        """After how many bytes of a body no more come; None where it comes whole."""
        wrong = self.server.faults
        limit = wrong.value(wrong.stall, name)
        is_met = limit is not None and limit < length and wrong.takes(wrong.stall, wrong.stall_times, name)
        return limit if is_met else None

    def _control(self, path: str, body: bytes) -> None:
        if self.command == "GET" and path == "/__stats":
            self._json(self.server.stats())
        elif self.command == "POST" and path == "/__stats":
            self.server.forget()
            self._json({})
        elif self.command == "POST":
            try:
                self.server.faults = faults.parse(json.loads(body))
            except (ValueError, UsageError) as error:
                self._refuse(Refusal(status=400, message=str(error)))
            else:
                self._json({})
        else:
            self._refuse(NOT_FOUND)
