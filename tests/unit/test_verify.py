"""What runs against what was planned, with an engine that says what a test wants it to."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dsv4_stack import assets, engine, lock, pins, profile, verify
from dsv4_stack.errors import NotReadyError
from dsv4_stack.plan import Plan, make_plan

PINS = pins.load(assets.PINS)
W4A8, DEMO = (make_plan(PINS, profile.load(name), lock.Lock()) for name in ("w4a8-tp2", "demo"))


class Api(http.server.BaseHTTPRequestHandler):
    """The two routes that verify asks."""

    answer = " Paris, of course"
    model = "deepseek-v4-flash-w4a8"
    length = 32768

    def do_GET(self) -> None:
        self.reply({"data": [{"id": self.model, "max_model_len": self.length}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({"choices": [{"text": self.answer}]})

    def reply(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The test's own output is enough."""


@pytest.fixture(autouse=True)
def pinned_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine puts in its place."""
    monkeypatch.delenv("DSV4_SERVE_BASE", raising=False)


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def running(plan: Plan) -> engine.State:
    return engine.State(
        service="serve",
        container="c",
        image=plan.serve.reference,
        status="running",
        health="healthy",
        says="ready: it answered rightly",
        exit_code=0,
        labels={"io.dsv4.context": plan.serve.context.digest, "io.dsv4.base": plan.serve.base, **plan.labels},
        started_at="",
        restarts=0,
        published="127.0.0.1:8000",
        reserved="127.0.0.1:8000",
    )


def manifest(plan: Plan) -> dict[str, Any]:
    base, overlay = plan.checkpoint.base, plan.checkpoint.overlay
    assert overlay is not None
    return {
        "config": "overlay",
        "checked_against": "hub",
        "base": {"repo": base.repo, "requested": base.revision, "revision": base.revision},
        "overlay": {"repo": overlay.repo, "requested": "main", "revision": "f" * 40},
        "files": {"config.json": {"size": 5, "sha256": "c" * 64, "origin": "overlay"}},
    }


RECORD = {"wheel": {"sha256": "e" * 64}, "vllm": W4A8.engine.version}


def findings(
    plan: Plan, url: str, monkeypatch: pytest.MonkeyPatch, *, state: engine.State | None, files: dict[str, Any]
) -> list[verify.Finding]:
    monkeypatch.setattr(engine, "states", lambda _: {"serve": state} if state else {})
    monkeypatch.setattr(engine, "read_json", lambda _, path: files[path])
    return verify.verify(plan, url)


NOTICE = {"state": "ready", "reason": "it answered rightly", "warnings": []}


def files_of(plan: Plan, **notice: object) -> dict[str, Any]:
    return {
        f"{plan.model_dir}/.dsv4/manifest.json": manifest(plan),
        "/opt/dsv4/build.json": RECORD,
        "/run/dsv4/state.json": NOTICE | notice,
    }


def test_everything_as_planned_and_what_is_unlocked_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(W4A8, url, monkeypatch, state=running(W4A8), files=files_of(W4A8))
    verify.raise_for(W4A8, found)
    assert [str(finding) for finding in found] == [
        f"ok    image: {W4A8.serve.reference}",
        f"ok    image context: {W4A8.serve.context.digest}",
        f"ok    base image: {W4A8.serve.base}",
        "ok    label io.dsv4.profile: w4a8-tp2",
        "ok    label io.dsv4.engine: nightly",
        "ok    label io.dsv4.checkpoint: w4a8",
        "ok    manifest: 1 files, 5 bytes, checked against hub",
        "ok    config: overlay",
        "ok    base: canada-quant/DeepSeek-V4-Flash-W4A16-FP8-MTP",
        "ok    base revision: 0bbee82146562d9b7e4687483d348c760e61ef3b",
        "ok    overlay: endnai/DeepSeek-V4-Flash-W4A8-FP8",
        f"ok    overlay revision: unlocked, main was {'f' * 40}",
        f"ok    engine version: {W4A8.engine.version}",
        f"ok    engine wheel: unlocked, sha256 was {'e' * 64}",
        "ok    watch: ready",
        "ok    served model: ['deepseek-v4-flash-w4a8']",
        "ok    context length: 32768",
        "ok    answer: 'The capital of France is' -> ' Paris, of course'",
    ]


def test_garbage_with_status_200_is_a_wrong_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "answer", "!!!!!!!!")
    found = findings(W4A8, url, monkeypatch, state=running(W4A8), files=files_of(W4A8))
    with pytest.raises(NotReadyError) as caught:
        verify.raise_for(W4A8, found)
    assert str(caught.value) == (
        "1 of 18 comparisons failed:\n"
        "  WRONG answer: 'The capital of France is' -> '!!!!!!!!', not one with Paris\n"
        "  next: run: dsv4 up --profile w4a8-tp2, which renders, builds and materializes what differs"
    )
    assert caught.value.exit_code == 10


def test_other_weights_another_image_and_another_model_are_all_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = running(W4A8)
    state.labels["io.dsv4.context"] = "other"
    files = files_of(W4A8)
    written = files[f"{W4A8.model_dir}/.dsv4/manifest.json"]
    written["config"] = "base"
    written["base"]["revision"] = "0" * 40
    monkeypatch.setattr(Api, "model", "something-else")
    found = findings(W4A8, url, monkeypatch, state=state, files=files)
    assert [finding.subject for finding in found if not finding.ok] == [
        "image context",
        "config",
        "base revision",
        "served model",
        "context length",
    ]


def test_a_locked_wheel_has_to_be_the_one_in_the_image(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = W4A8.engine.wheel
    assert wheel is not None
    known = lock.Lock(engines={"nightly": lock.LockedWheel(url=wheel.url, sha256="d" * 64, size=1)})
    plan = make_plan(lock.apply(PINS, known), profile.load("w4a8-tp2"), known)
    found = findings(plan, url, monkeypatch, state=running(plan), files=files_of(plan))
    assert [str(finding) for finding in found if not finding.ok] == [
        f"WRONG engine wheel: {'e' * 64}, not {'d' * 64}",
    ]


@pytest.mark.parametrize(
    ("sha256", "line"),
    [
        ("c" * 64, "ok    overlay files: 1 as in the lock"),
        ("d" * 64, "WRONG overlay files: other bytes in config.json, not the lock's"),
    ],
)
def test_files_are_held_against_the_lock(url: str, monkeypatch: pytest.MonkeyPatch, sha256: str, line: str) -> None:
    overlay = W4A8.checkpoint.overlay
    assert overlay is not None
    locked = lock.LockedFile(size=5, sha256=sha256)
    repo = lock.LockedRepo(requested="main", revision="f" * 40, files={"config.json": locked})
    known = lock.Lock(repos={overlay.repo: repo})
    plan = make_plan(lock.apply(PINS, known), profile.load("w4a8-tp2"), known)
    found = findings(plan, url, monkeypatch, state=running(plan), files=files_of(W4A8))
    assert [str(finding) for finding in found if finding.subject.endswith(" files")] == [line]


def test_files_of_another_revision_than_the_locks_are_not_held_against_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a pin has changed, and nobody has locked it anew."""
    base = W4A8.checkpoint.base
    repo = lock.LockedRepo(requested="main", revision="0" * 40, files={})
    plan = make_plan(PINS, profile.load("w4a8-tp2"), lock.Lock(repos={base.repo: repo}))
    found = findings(plan, url, monkeypatch, state=running(plan), files=files_of(W4A8))
    assert [str(finding) for finding in found if finding.subject.endswith(" files")] == []


def test_a_vllm_of_another_version_is_wrong(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(W4A8)
    files["/opt/dsv4/build.json"] = RECORD | {"vllm": "0.25.1"}
    found = findings(W4A8, url, monkeypatch, state=running(W4A8), files=files)
    assert [str(finding) for finding in found if not finding.ok] == [
        f"WRONG engine version: 0.25.1, not {W4A8.engine.version}"
    ]


def test_a_base_that_is_pinned_by_its_tag_alone_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = replace(profile.load("w4a8-tp2"), engine="v0.33.0")
    plan = make_plan(PINS, chosen, lock.Lock())
    found = findings(plan, url, monkeypatch, state=running(plan), files=files_of(W4A8))
    line = "ok    base image: vllm/vllm-openai:v0.33.0, unlocked: whatever the tag was at the build"
    assert line in [str(finding) for finding in found]


def test_an_engine_that_lets_nobody_in_is_not_ready(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(W4A8, state="wrong", reason="'abc' is answered with '!!!'")
    with pytest.raises(NotReadyError) as caught:
        findings(W4A8, url, monkeypatch, state=running(W4A8), files=files)
    assert str(caught.value) == (
        "dsv4-w4a8-tp2: wrong: 'abc' is answered with '!!!'\n  next: run: dsv4 logs --profile w4a8-tp2 serve"
    )


def test_what_the_watch_warns_of_is_wrong(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(W4A8, warnings=["the weights are others"])
    found = findings(W4A8, url, monkeypatch, state=running(W4A8), files=files)
    assert [str(finding) for finding in found if not finding.ok] == [
        "WRONG watch: the weights are others, not as it was started"
    ]


def test_behind_the_edge_it_is_asked_from_inside(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the port would be."""
    states = {"serve": running(W4A8), "edge": running(W4A8)}
    files = files_of(W4A8)
    model = {"id": W4A8.profile.serve.name, "max_model_len": 32768}
    answer = {"text": " Paris", "token_ids": [1], "refusal": "", "is_lost": False}
    monkeypatch.setattr(engine, "states", lambda _: states)
    monkeypatch.setattr(engine, "read_json", lambda _, path: files[path])
    monkeypatch.setattr(engine, "ask_guest", lambda _, verb: {"models": {"data": [model]}, "answer": answer, "v": verb})
    found = verify.verify(W4A8, f"{url}/nowhere")
    verify.raise_for(W4A8, found)
    assert str(found[-1]) == "ok    answer: 'The capital of France is' -> ' Paris'"


def test_an_engine_that_cannot_be_asked_from_inside_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_state: engine.State, _verb: str) -> None:
        raise NotReadyError("the API does not list its models", "")

    files = files_of(W4A8)
    monkeypatch.setattr(engine, "states", lambda _: {"serve": running(W4A8), "edge": running(W4A8)})
    monkeypatch.setattr(engine, "read_json", lambda _, path: files[path])
    monkeypatch.setattr(engine, "ask_guest", fail)
    with pytest.raises(NotReadyError) as caught:
        verify.verify(W4A8, "")
    assert str(caught.value) == "the API does not list its models\n  next: run: dsv4 status --profile w4a8-tp2"


def test_nothing_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReadyError) as caught:
        findings(DEMO, url, monkeypatch, state=None, files={})
    assert str(caught.value) == "dsv4-demo: serve does not run\n  next: run: dsv4 up --profile demo"


def test_another_base_is_wrong_unless_the_environment_asks_for_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = running(W4A8)
    state.labels["io.dsv4.base"] = "mirror/vllm:1"
    found = findings(W4A8, url, monkeypatch, state=state, files=files_of(W4A8))
    note = f"mirror/vllm:1 (DSV4_SERVE_BASE, in place of {W4A8.serve.base})"
    assert [str(finding) for finding in found if not finding.ok] == [f"WRONG base image: {note}, not {W4A8.serve.base}"]
    monkeypatch.setenv("DSV4_SERVE_BASE", "mirror/vllm:1")
    found = findings(W4A8, url, monkeypatch, state=state, files=files_of(W4A8))
    assert f"ok    base image: {note}" in [str(finding) for finding in found]
    verify.raise_for(W4A8, found)


@pytest.mark.parametrize("models", [{}, {"data": None}, {"data": [{}]}])
def test_an_api_that_lists_no_models_is_not_ready(
    url: str, monkeypatch: pytest.MonkeyPatch, models: dict[str, object]
) -> None:
    monkeypatch.setattr(Api, "do_GET", lambda self: self.reply(models))
    with pytest.raises(NotReadyError, match="answers without a list of models"):
        findings(W4A8, url, monkeypatch, state=running(W4A8), files=files_of(W4A8))


def test_an_api_that_nobody_serves_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReadyError) as caught:
        findings(W4A8, "http://127.0.0.1:9", monkeypatch, state=running(W4A8), files=files_of(W4A8))
    assert caught.value.exit_code == 10
    assert caught.value.next_step == "run: dsv4 status --profile w4a8-tp2"
