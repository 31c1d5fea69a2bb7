"""What the engine would say of a container, where a test needs no container."""

from dsv4_stack import engine


def state(**changes: object) -> engine.State:
    """Of serve while it starts, but for the changes."""
    fields: dict[str, object] = {
        "service": "serve",
        "container": "c",
        "image": "i",
        "status": "running",
        "health": "starting",
        "says": "",
        "exit_code": 0,
        "labels": {},
        "started_at": "2026-01-01T00:00:00Z",
        "restarts": 3,
        "published": "127.0.0.1:9000",
        "reserved": "127.0.0.1:9000",
    }
    return engine.State(**(fields | changes))  # type: ignore[arg-type]
