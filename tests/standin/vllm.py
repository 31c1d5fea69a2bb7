#!/usr/bin/env python3
"""An engine that misbehaves on demand, in vLLM's place: its command line, its API, its metrics, its middlewares.

For the faults that no real engine shows when it is asked to. The standard library alone, so that it runs on any base.
A fault is set with POST /standin {"fault": NAME}, or from the start with $STANDIN_FAULT:

  hang      nothing is computed any more; /health stays 200, as vLLM's does
  stuck     the API itself answers nothing any more
  garbage   every answer is 200 and nonsense
  slow      a token takes a second
  drop      a stream is cut off in its middle
  crash     the process exits with 1
  none      all is well again

$STANDIN_LOAD_S is how long it loads; it does not listen before that, as vLLM does not. $STANDIN_LOAD=spin loads for
ever without anything to show for it, as ranks that wait for each other do.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TOKEN_S = 0.005
REASONS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}


class Engine:
    """Continues the alphabet, one letter a token, for as many requests at a time as there are."""

    def __init__(self) -> None:
        self.fault = os.environ.get("STANDIN_FAULT", "none")
        self.counts = {"running": 0, "iterations": 0, "prompt": 0, "generated": 0}

    async def tokens(self, prompt: str | list[int], count: int) -> AsyncIterator[str]:
        """A prompt of token ids has no last letter, and is followed by the alphabet's first."""
        self.counts["running"] += 1
        before = ALPHABET.find(prompt[-1:]) if isinstance(prompt, str) else -1
        try:
            for index in range(count):
                await self._step()
                # As vLLM: with the first token, not when a request comes.
                self.counts["prompt"] += len(prompt) if index == 0 else 0
                yield "!" if self.fault == "garbage" else ALPHABET[(before + 1 + index) % 26]
        finally:
            self.counts["running"] -= 1

    async def _step(self) -> None:
        await asyncio.sleep(1.0 if self.fault == "slow" else TOKEN_S)
        while self.fault == "hang":
            await asyncio.sleep(0.05)
        self.counts["iterations"] += 1
        self.counts["generated"] += 1

    @property
    def metrics(self) -> str:
        # As vLLM: what runs is counted when a step has ended, so a hang in the first one leaves it at zero.
        running = 0 if self.fault == "hang" else self.counts["running"]
        return (
            f'vllm:num_requests_running{{engine="0"}} {running}\n'
            f'vllm:num_requests_waiting{{engine="0"}} 0\n'
            f'vllm:iteration_tokens_total_count{{engine="0"}} {self.counts["iterations"]}\n'
            f'vllm:prompt_tokens_total{{engine="0"}} {self.counts["prompt"]}\n'
            f'vllm:generation_tokens_total{{engine="0"}} {self.counts["generated"]}\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {min(1.0, running / 64)}\n'
        )


class App:
    """The API, as an ASGI application."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
        path = scope["path"]
        body = json.loads((await receive())["body"] or b"{}")
        if path == "/standin":
            self._engine.fault = body["fault"]
            if self._engine.fault == "crash":
                os._exit(1)
            await _reply(send, 200, json.dumps(body))
        elif path == "/health":
            await _reply(send, 200, "")
        elif path == "/metrics":
            await _reply(send, 200, self._engine.metrics)
        elif path == "/v1/models":
            await _reply(send, 200, json.dumps({"data": [{"id": self._name, "max_model_len": 512}]}))
        elif path == "/v1/completions":
            await self._complete(body, send)
        else:
            await _reply(send, 404, "")

    async def _complete(self, body: dict[str, Any], send: Any) -> None:  # noqa: ANN401
        tokens = self._engine.tokens(body["prompt"], body["max_tokens"])
        if not body.get("stream"):
            text = "".join([token async for token in tokens])
            choice = {"text": text, "finish_reason": "length", "token_ids": list(text.encode())}
            await _reply(send, 200, json.dumps({"choices": [choice]}))
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        index = 0
        async for token in tokens:
            index += 1
            if self._engine.fault == "drop" and index > 3:
                raise ConnectionError("the stream is dropped")
            event = {"choices": [{"text": token, "finish_reason": "length" if index == body["max_tokens"] else None}]}
            await send({"type": "http.response.body", "body": _event(json.dumps(event)), "more_body": True})
        await send({"type": "http.response.body", "body": _event("[DONE]")})


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def _reply(send: Any, status: int, text: str) -> None:  # noqa: ANN401
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


class Server:
    """HTTP/1.1, one request a connection: enough to host an ASGI application."""

    def __init__(self, app: Any, engine: Engine) -> None:  # noqa: ANN401
        self._app = app
        self._engine = engine

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            while self._engine.fault == "stuck":
                await asyncio.sleep(0.05)
            line, *rest = head.rstrip().split("\r\n")
            method, path, _ = line.split()
            headers = [tuple(part.strip() for part in row.split(":", 1)) for row in rest]
            length = int(next((value for name, value in headers if name.lower() == "content-length"), 0))
            body = await reader.readexactly(length)
            scope = {
                "type": "http",
                "method": method,
                "path": path.partition("?")[0],
                "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            }

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            await self._app(scope, receive, lambda message: _write(writer, message))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _write(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    if message["type"] == "http.response.start":
        reason = REASONS.get(message["status"], "Unknown")
        writer.write(f"HTTP/1.1 {message['status']} {reason}\r\nConnection: close\r\n".encode())
        headers = [header for header in message["headers"] if header[0] != b"connection"]
        writer.write(b"".join(name + b": " + value + b"\r\n" for name, value in headers) + b"\r\n")
    else:
        writer.write(message["body"])
    await writer.drain()


def _flag(words: list[str], name: str, default: str) -> str:
    return words[words.index(name) + 1] if name in words else default


def _load() -> None:
    """Loading, which may never end."""
    deadline = time.monotonic() + float(os.environ.get("STANDIN_LOAD_S", "0"))
    while time.monotonic() < deadline:
        time.sleep(0.05)
    while os.environ.get("STANDIN_LOAD") == "spin":
        init_process_group_that_never_ends()


def init_process_group_that_never_ends() -> None:
    """A rank that waits for the others: busy, and of no use."""
    deadline = time.monotonic() + 0.01
    while time.monotonic() < deadline:
        pass


async def main(words: list[str]) -> None:
    engine = Engine()
    app: Any = App(engine, _flag(words, "--served-model-name", "model"))
    for name in [words[index + 1] for index, word in enumerate(words) if word == "--middleware"]:
        module, _, kind = name.rpartition(".")
        app = getattr(importlib.import_module(module), kind)(app)
    host, port = _flag(words, "--host", "127.0.0.1"), int(_flag(words, "--port", "8000"))
    server = await asyncio.start_server(Server(app, engine).serve, host, port, backlog=512)
    print("Application startup complete", flush=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    # As vLLM with --shutdown-timeout 0, its default: what is in flight is cut off.
    server.close()


if __name__ == "__main__":
    _load()
    asyncio.run(main(sys.argv[1:]))
