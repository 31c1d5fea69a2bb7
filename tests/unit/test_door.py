"""The middleware in vLLM's API server, called as an ASGI server calls it."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dsv4_stack.guest import hooks
from dsv4_stack.guest.hooks.dsv4_door import IN_FLIGHT, Door, Message, Receive, Send

PASS = "let-me-in"


class App:
    """Answers 200, and may be held until it is let go."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        self.paths.append(scope.get("path", scope["type"]))
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "door"
    monkeypatch.setenv("DSV4_DOOR", str(path))
    monkeypatch.setenv("DSV4_PASS", PASS)
    path.write_text("")
    return path


def close(file: Path, reason: str) -> None:
    """As the watch does it."""
    beside = file.with_name("beside")
    beside.write_text(reason)
    beside.replace(file)


async def ask(door: Door, path: str, *, method: str = "POST", given: str = "") -> tuple[int, dict[str, str], Any]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    headers = [(b"host", b"x")] + ([(b"x-dsv4-pass", given.encode())] if given else [])
    await door({"type": "http", "path": path, "method": method, "headers": headers}, receive, send)
    start, body = sent
    return (
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        json.loads(body["body"]),
    )


def status(door: Door, path: str, *, method: str = "POST", given: str = "") -> int:
    return asyncio.run(ask(door, path, method=method, given=given))[0]


@pytest.mark.usefixtures("file")
def test_an_open_door_lets_everything_pass() -> None:
    app = App()
    door = Door(app)
    assert [status(door, path) for path in ("/v1/completions", "/health", "/tokenize")] == [200, 200, 200]
    assert app.paths == ["/v1/completions", "/health", "/tokenize"]


def test_a_closed_one_says_why_and_when_to_come_again(file: Path) -> None:
    app = App()
    door = Door(app)
    close(file, "wrong: 'abc' is answered with '!!!!'")
    assert asyncio.run(ask(door, "/v1/completions")) == (
        503,
        {"content-type": "application/json", "content-length": "96", "retry-after": "5", "connection": "close"},
        {"error": {"message": "wrong: 'abc' is answered with '!!!!'", "type": "not_ready", "code": 503}},
    )
    assert status(door, "/health", method="GET") == 503
    assert app.paths == []


def test_what_tells_of_the_server_passes_always_and_so_does_the_watch(file: Path) -> None:
    door = Door(App())
    close(file, "starting")
    assert [status(door, path, method="GET") for path in ("/metrics", "/v1/models", "/version")] == [200, 200, 200]
    assert status(door, "/v1/completions", given=PASS) == 200
    assert status(door, "/v1/completions", given=PASS + "x") == 503


def test_it_is_opened_and_closed_while_it_stands(file: Path) -> None:
    door = Door(App())
    seen = []
    for reason in ("starting", "", "draining", ""):
        close(file, reason)
        seen.append(status(door, "/v1/completions"))
    assert seen == [503, 200, 503, 200]


def test_without_its_watch_it_is_closed(file: Path) -> None:
    door = Door(App())
    file.unlink()
    assert asyncio.run(ask(door, "/v1/completions"))[2]["error"]["message"] == "the watch over this engine is gone"


def test_an_engine_without_a_watch_has_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSV4_DOOR", raising=False)
    monkeypatch.delenv("DSV4_PASS", raising=False)
    app = App()
    door = Door(app)
    assert status(door, "/v1/completions") == 200
    assert status(door, IN_FLIGHT, method="GET") == 200
    assert app.paths == ["/v1/completions", IN_FLIGHT]


def test_it_counts_what_users_wait_for_to_the_end_of_the_answer(file: Path) -> None:
    assert file.exists()

    async def story() -> list[int]:
        app = App()
        door = Door(app)
        counts = []

        async def count() -> None:
            counts.append((await ask(door, IN_FLIGHT, method="GET", given=PASS))[2]["in_flight"])

        await count()
        app.go.clear()
        users = [asyncio.create_task(ask(door, "/v1/completions")) for _ in range(3)]
        ours = asyncio.create_task(ask(door, "/v1/completions", given=PASS))
        looks = asyncio.create_task(ask(door, "/v1/models", method="GET"))
        await asyncio.sleep(0)
        await count()
        # One that goes away is no longer waited for.
        users.pop().cancel()
        await asyncio.sleep(0)
        await count()
        app.go.set()
        await asyncio.gather(*users, ours, looks)
        await count()
        return counts

    assert asyncio.run(story()) == [0, 3, 2, 0]


@pytest.mark.usefixtures("file")
def test_what_is_no_http_passes() -> None:
    app = App()
    asyncio.run(Door(app)({"type": "lifespan"}, None, _ignore))  # type: ignore[arg-type]
    assert app.paths == ["lifespan"]


async def _ignore(_message: Message) -> None:
    """Nobody listens."""


def test_the_access_log_is_for_users(caplog: pytest.LogCaptureFixture) -> None:
    Door(App())
    logger = logging.getLogger("uvicorn.access")
    caplog.set_level(logging.INFO, logger="uvicorn.access")
    for path in ("/health", "/metrics?x=1", IN_FLIGHT, "/v1/completions"):
        logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", path, "1.1", 200)
    logger.info("a text of its own")
    assert [record.getMessage() for record in caplog.records] == [
        '127.0.0.1:1 - "GET /v1/completions HTTP/1.1" 200',
        "a text of its own",
    ]


def test_it_lies_in_a_folder_beside_nothing_of_ours() -> None:
    """That folder is on the path of vLLM's processes."""
    folder = Path(hooks.__file__).parent
    assert sorted(path.name for path in folder.glob("*.py")) == ["__init__.py", "dsv4_door.py", "sitecustomize.py"]
    assert all("dsv4_stack" not in path.read_text() for path in folder.glob("*.py"))
