"""What runs against what was planned: labels, manifest, served model, and an answer at temperature 0."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dsv4_stack import engine
from dsv4_stack.errors import Dsv4Error, NetworkError, NotAllowedError, NotFoundError, NotReadyError
from dsv4_stack.guest import http
from dsv4_stack.guest.serving import question
from dsv4_stack.guest.serving.question import Answer, Question
from dsv4_stack.guest.serving.watch import State
from dsv4_stack.images import LABEL
from dsv4_stack.lock import LockedFile
from dsv4_stack.pins import Repo
from dsv4_stack.plan import RUN_MOUNT, Plan


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison. `found` is what is there, `wanted` what the plan says."""

    subject: str
    ok: bool
    found: str
    wanted: str

    def __str__(self) -> str:
        return (
            f"ok    {self.subject}: {self.found}"
            if self.ok
            else f"WRONG {self.subject}: {self.found}, not {self.wanted}"
        )


def verify(plan: Plan, url: str) -> list[Finding]:
    """Every comparison. Raises NotReadyError where nothing runs that could be compared."""
    states = engine.states(plan.project)
    state = states.get("serve")
    if state is None or state.status != "running":
        raise NotReadyError(f"{plan.project}: serve does not run", f"run: dsv4 up --profile {plan.profile.name}")
    watch = _watch(plan, _json(plan, state, f"{RUN_MOUNT}/state.json"))
    manifest = _json(plan, state, f"{plan.model_dir}/.dsv4/manifest.json")
    record = _json(plan, state, "/opt/dsv4/build.json") if plan.engine.wheel else {}
    return [
        *_labels(plan, state),
        *_manifest(plan, manifest),
        *_unlocked(plan, manifest, record),
        watch,
        *_served(plan, _from_inside(plan, state) if "edge" in states else _from_outside(plan, url)),
    ]


def raise_for(plan: Plan, findings: list[Finding]) -> None:
    wrong = [finding for finding in findings if not finding.ok]
    if wrong:
        raise NotReadyError(
            f"{len(wrong)} of {len(findings)} comparisons failed:\n" + "\n".join(f"  {finding}" for finding in wrong),
            f"run: dsv4 up --profile {plan.profile.name}, which renders, builds and materializes what differs",
        )


def compare(subject: str, found: object, wanted: object) -> Finding:
    return Finding(subject=subject, ok=found == wanted, found=str(found), wanted=str(wanted))


def _json(plan: Plan, state: engine.State, path: str) -> dict[str, Any]:
    try:
        return dict(engine.read_json(state, path))
    except NotFoundError as error:
        raise NotReadyError(error.message, f"run: dsv4 up --profile {plan.profile.name}") from None


def _watch(plan: Plan, notice: dict[str, Any]) -> Finding:
    """What the watch in the container says of its engine. Raises NotReadyError where that lets nobody in."""
    if notice["state"] != State.READY:
        raise NotReadyError(
            f"{plan.project}: {notice['state']}: {notice['reason']}",
            f"run: dsv4 logs --profile {plan.profile.name} serve",
        )
    warnings = "; ".join(notice["warnings"])
    return Finding(subject="watch", ok=not warnings, found=warnings or notice["state"], wanted="as it was started")


def _labels(plan: Plan, state: engine.State) -> Iterator[Finding]:
    yield compare("image", state.image, plan.serve.reference)
    yield compare("image context", state.labels.get(f"{LABEL}.context"), plan.serve.context.digest)
    yield _base(plan, state.labels.get(f"{LABEL}.base", "unknown"))
    for name, value in plan.labels.items():
        if name != f"{LABEL}.unlocked":
            yield compare(f"label {name}", state.labels.get(name), value)


def _base(plan: Plan, found: str) -> Finding:
    """The pinned base; another one is right only where the environment asks for it, and is named."""
    wanted = os.environ.get(plan.serve.base_variable) or plan.serve.base
    note = f" ({plan.serve.base_variable}, in place of {plan.serve.base})" if found != plan.serve.base else ""
    if not plan.engine.base_locked:
        note += ", unlocked: whatever the tag was at the build"
    return Finding(subject="base image", ok=found == wanted, found=found + note, wanted=wanted)


def _manifest(plan: Plan, manifest: dict[str, Any]) -> Iterator[Finding]:
    checkpoint = plan.checkpoint
    size = sum(entry["size"] for entry in manifest["files"].values())
    summary = f"{len(manifest['files'])} files, {size} bytes, checked against {manifest['checked_against']}"
    yield Finding(subject="manifest", ok=bool(manifest["files"]), found=summary, wanted="the files of a checkpoint")
    yield compare("config", manifest["config"], checkpoint.config.value)
    for name, repo in (("base", checkpoint.base), ("overlay", checkpoint.overlay)):
        source = manifest[name] or {}
        yield compare(name, source.get("repo"), repo.repo if repo else None)
        if repo and repo.revision:
            yield compare(f"{name} revision", source.get("revision"), repo.revision)
            yield from _locked(plan, name, repo, manifest["files"])


def _locked(plan: Plan, origin: str, repo: Repo, files: dict[str, Any]) -> Iterator[Finding]:
    """What the manifest says of a repository's files against what the lock does, where that knows the revision."""
    locked = plan.lock.repos.get(repo.repo)
    if locked and locked.revision == repo.revision:
        found = {name: entry for name, entry in files.items() if entry["origin"] == origin}
        wrong = sorted(name for name, entry in found.items() if not _is_as_locked(entry, locked.files.get(name)))
        said = f"other bytes in {', '.join(wrong)}" if wrong else f"{len(found)} as in the lock"
        yield Finding(subject=f"{origin} files", ok=not wrong, found=said, wanted="the lock's")


def _is_as_locked(entry: dict[str, Any], locked: LockedFile | None) -> bool:
    return locked is not None and (entry["size"], entry["sha256"]) == (locked.size, locked.sha256)


def _unlocked(plan: Plan, manifest: dict[str, Any], record: dict[str, Any]) -> Iterator[Finding]:
    """Nothing to compare with, but named: what an unlocked pin was resolved to."""
    for name, repo in (("base", plan.checkpoint.base), ("overlay", plan.checkpoint.overlay)):
        if repo and not repo.revision:
            found = f"unlocked, {repo.branch} was {(manifest[name] or {}).get('revision')}"
            yield Finding(subject=f"{name} revision", ok=True, found=found, wanted="")
    if plan.engine.wheel:
        yield compare("engine version", record["vllm"], plan.engine.version)
        sha256 = record["wheel"]["sha256"]
        if plan.engine.wheel.sha256:
            yield compare("engine wheel", sha256, plan.engine.wheel.sha256)
        else:
            yield Finding(subject="engine wheel", ok=True, found=f"unlocked, sha256 was {sha256}", wanted="")


def _from_outside(plan: Plan, url: str) -> tuple[Any, Answer]:
    """What /v1/models lists and what the model answers, as users get it. Raises NotReadyError."""
    try:
        models = http.get_json(f"{url}/v1/models")
        return models, question.answer_of(http.post_json(f"{url}/v1/completions", plan.question.body))
    except (NetworkError, NotFoundError, NotAllowedError) as error:
        raise NotReadyError(error.message, f"run: dsv4 status --profile {plan.profile.name}") from None


def _from_inside(plan: Plan, state: engine.State) -> tuple[Any, Answer]:
    """The same from within the container: behind the edge it takes a key, which verify has not."""
    try:
        found = engine.ask_guest(state, "ask")
    except Dsv4Error as error:
        raise NotReadyError(error.message, f"run: dsv4 status --profile {plan.profile.name}") from None
    answer = found["answer"]
    return found["models"], Answer(**answer | {"token_ids": tuple(answer["token_ids"])})


def _served(plan: Plan, found: tuple[Any, Answer]) -> Iterator[Finding]:
    serve, (listed, answer) = plan.profile.serve, found
    try:
        models = {model["id"]: model.get("max_model_len") for model in listed["data"]}
    except (KeyError, TypeError, AttributeError):
        raise NotReadyError("/v1/models answers without a list of models") from None
    yield compare("served model", list(models), [serve.name])
    if "max-model-len" in serve.flags:
        yield compare("context length", models.get(serve.name), serve.flags["max-model-len"])
    yield Finding(
        subject="answer",
        ok=not plan.question.problem_of(answer),
        found=answer.refusal or ("none came" if answer.is_lost else f"{plan.question.prompt!r} -> {answer.text!r}"),
        wanted=_wanted(plan.question),
    )


def _wanted(asked: Question) -> str:
    begins = f" that begins with the tokens {list(asked.token_ids)}" if asked.token_ids else ""
    return f"one with {asked.expect}{begins}"
