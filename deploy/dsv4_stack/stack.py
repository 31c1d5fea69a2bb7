"""The running stack: build, start, follow it until it is ready, stop it."""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dsv4_stack import engine
from dsv4_stack.errors import Dsv4Error, NotReadyError, of_exit_code
from dsv4_stack.guest import access, terminal
from dsv4_stack.guest.checkpoint import progress_view
from dsv4_stack.guest.serving.watch import State
from dsv4_stack.images import LABEL, Image
from dsv4_stack.plan import Plan
from dsv4_stack.project import Files, environment, prepare

Say = Callable[[str], None]
POLL_S = 0.5
PROGRESS_S = 10.0
MATERIALIZE = progress_view.PREFIX
SHARDS = "Loading safetensors checkpoint shards"
# What vLLM says when a phase of its start is over; everything else of its log is for `dsv4 logs`.
MILESTONES = (
    "Loading weights took",
    "Model loading took",
    "GPU KV cache size",
    "Graph capturing finished",
    "init engine",
    "Application startup complete",
)


def build(plan: Plan, files: Files, say: Say) -> dict[str, str]:
    """Build what is not there yet; returns image ids by reference. An image is named by its context's hash."""
    missing = [image for image in plan.images if not _is_there(image)]
    if missing:
        _build(missing, files, say)
    else:
        say("build: every image is there already")
    return {image.reference: str((engine.image(image.reference) or {}).get("Id", "")) for image in plan.images}


def build_init(plan: Plan, say: Say) -> None:
    """The init image alone, where it is not there yet: what works on a volume needs no engine."""
    if not _is_there(plan.init):
        _build([plan.init], prepare(plan), say)


def _build(missing: Sequence[Image], files: Files, say: Say) -> None:
    say(f"build: {', '.join(image.reference for image in missing)}")
    engine.compose_build(files, *(image.service for image in missing), env=environment({}))


def base_of(image: Image) -> str:
    """What an image is to be built on: its pinned base, or what the environment puts in its place."""
    return os.environ.get(image.base_variable) or image.base


def _is_there(image: Image) -> bool:
    """Whether the image is built, and on the base that it would be built on now."""
    found = engine.image(image.reference)
    return found is not None and (found["Config"]["Labels"] or {}).get(f"{LABEL}.base") == base_of(image)


def up(plan: Plan, files: Files, overrides: dict[str, str], say: Say) -> None:
    """Start the stack and follow it until it serves. Raises what the init container failed with, or NotReadyError."""
    with _token_file() as token:
        # Compose's own display would draw over ours.
        starting = engine.compose_in_background(
            files,
            *("--progress", "plain", "up", "--detach", "--no-build", "--remove-orphans"),
            env=environment(overrides) | token,
        )
        try:
            _follow_materialize(plan, starting.poll, _live(say))
            # A download may take hours, and has limits of its own; the engine's patience begins when it starts.
            code = starting.wait()
        finally:
            if starting.poll() is None:
                starting.terminate()
                starting.wait()
    materialize = engine.states(plan.project).get("materialize")
    if materialize and materialize.exit_code:
        message = f"materialize ended with exit code {materialize.exit_code}"
        raise of_exit_code(materialize.exit_code)(message, _logs(plan, "materialize"))
    if code:
        raise Dsv4Error(f"`docker compose up` ended with exit code {code}", _logs(plan))
    _wait_until_healthy(plan, say)


def down(files: Files, *, volumes: bool) -> None:
    """Stop and remove the containers; the weights are a bind mount and stay."""
    engine.compose(files, "down", "--remove-orphans", *(["--volumes"] if volumes else []))


def url(plan: Plan, overrides: dict[str, str]) -> str:
    """Where the API answers on this machine: where the running container publishes it, else where it would."""
    settings = {**os.environ, **overrides}
    states = engine.states(plan.project)
    if "edge" in states:
        host, port = settings.get("DSV4_EDGE_HOST") or "localhost", states["edge"].published.rpartition(":")[2]
        return f"https://{host}" if port in ("", "443") else f"https://{host}:{port}"
    serve = states.get("serve")
    bind = settings.get("DSV4_BIND") or plan.profile.serve.bind
    address, _, port = (serve.published if serve else "").rpartition(":")
    address, port = address or bind, port or settings.get("DSV4_PORT") or str(plan.profile.serve.port)
    if address in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        address = "127.0.0.1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def dashboard(plan: Plan) -> str:
    """Where Grafana answers on this machine; nothing where monitoring is not laid over the stack."""
    grafana = engine.states(plan.project).get("grafana")
    return f"http://{grafana.published}" if grafana and grafana.published else ""


@contextmanager
def _token_file() -> Iterator[dict[str, str]]:
    """The token as a file, so that it stands in no environment that `docker inspect` shows.

    The container's user has to read it, and no other user of this machine comes into its folder. Raises ConfigError.
    """
    token = access.token()
    if not token:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="dsv4-token-") as folder:
        file = Path(folder) / "token"
        file.write_text(token, encoding="utf-8")
        file.chmod(0o444)
        yield {"HF_TOKEN_FILE": str(file)}


def _follow_materialize(plan: Plan, ended: Callable[[], int | None], say: Say) -> None:
    """Pass on the init container's log while `docker compose up` waits for it."""
    before = engine.states(plan.project).get("materialize")
    while ended() is None:
        state = engine.states(plan.project).get("materialize")
        if state and state.status != "created" and (before is None or state.started_at != before.started_at):
            for line in engine.logs(state, follow=True):
                say(f"{MATERIALIZE}{line.removeprefix(MATERIALIZE)}")
            return
        time.sleep(POLL_S)


def _live(say: Say) -> Say:
    """As `say`, but on a terminal a line of progress takes the place of the one just before it."""
    if not terminal.can_draw(sys.stderr):
        return say
    block = terminal.Block(sys.stderr)

    def tell(line: str) -> None:
        if progress_view.is_progress(line):
            block.draw([progress_view.fitted(line, terminal.size(sys.stderr).columns - 1)])
        else:
            block.leave()
            say(line)

    return tell


def _wait_until_healthy(plan: Plan, say: Say) -> None:
    patience = plan.profile.serve.ready_timeout_s
    deadline = time.monotonic() + patience
    first: engine.State | None = None
    following = False
    status = "not created"
    while time.monotonic() < deadline:
        state = engine.states(plan.project).get("serve")
        if state:
            status = state.health or state.status
            if state.health == "healthy":
                return
            _refuse_wrong(plan, state)
            # Docker counts restarts over the container's life, and one that still waits for its next was counted.
            first = first or state
            if state.status in ("exited", "dead") or state.restarts > first.restarts:
                raise (of_exit_code(state.exit_code) if state.exit_code else NotReadyError)(
                    _last_words(state), _logs(plan, "serve")
                )
            if not following and state.status == "running":
                following = True
                threading.Thread(target=_say_milestones, args=(state, say), daemon=True).start()
        time.sleep(POLL_S)
    raise NotReadyError(f"the engine is not ready after {patience} seconds ({status})", _logs(plan, "serve"))


def _refuse_wrong(plan: Plan, state: engine.State) -> None:
    """An engine that answers wrongly gets no better by waiting. Raises NotReadyError."""
    if state.status == "running" and state.says.startswith(f"{State.WRONG}: "):
        reason = state.says.partition(": ")[2]
        raise NotReadyError(f"the engine answers wrongly: {reason}", _logs(plan, "serve"))


def _say_milestones(state: engine.State, say: Say) -> None:
    """The ends of the start's phases, and the shards as they are read, at most one line every few seconds."""
    said = 0.0
    for line in engine.logs(state, follow=True):
        last = line.rpartition("\r")[2]
        if any(milestone in last for milestone in MILESTONES):
            say(f"serve: {last}")
        elif SHARDS in last and time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            say(f"serve: {last.strip()}")


def _last_words(state: engine.State) -> str:
    """Of its last life: after a restart the log since then is nearly empty, so the whole log's end is taken."""
    words = "\n".join(f"  {line}" for line in engine.logs(state, tail=12, whole=True))
    return f"the engine stopped; its last words:\n{words}"


def _logs(plan: Plan, service: str = "") -> str:
    return f"run: dsv4 logs --profile {plan.profile.name} {service}".rstrip()
