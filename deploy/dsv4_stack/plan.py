"""Pins x profile -> plan: every image, command, mount and variable, decided here so that templates only print."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Final

from dsv4_stack import matrix
from dsv4_stack.errors import ConfigError
from dsv4_stack.guest.loader import Loader
from dsv4_stack.guest.serving.patience import Patience
from dsv4_stack.guest.serving.question import Question
from dsv4_stack.images import LABEL, Image, init_image, serve_image
from dsv4_stack.lock import Lock, repos_of, unlocked
from dsv4_stack.pins import Checkpoint, Engine, Pins, engine_named
from dsv4_stack.profile import Profile, Setting
from dsv4_stack.releases import Facts, Hazard

WEIGHTS_MOUNT: Final = "/weights"
CACHE_MOUNT: Final = "/cache"
RUN_MOUNT: Final = "/run/dsv4"
# Nobody's number on a usual host. $DSV4_UID and $DSV4_GID put others in its place.
UID: Final = 10001
MONITORING: Final = "monitoring"
GPU_METRICS: Final = "gpu-metrics"
EDGE: Final = "edge"
OVERLAYS: Final = (MONITORING, GPU_METRICS, EDGE)
"""What may be laid over a stack, in this order: the edge takes networks away that others are on."""
# Of the edge: names and hashes of API keys, no secrets.
KEYS_DIR: Final = "/var/lib/dsv4/keys"
LOCK_MOUNT: Final = "/dsv4.lock"
_PASSED: Final = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"),
)
"""What the init container takes from the host's environment."""
SPECULATIVE: Final = "speculative-config"
MTP: Final = {"method": "mtp", "num_speculative_tokens": 1}
HUB_URL: Final = "http://hub:8000"

# Every place where the engine's kernels are compiled to or kept; with ~/.cache/vllm alone all others start cold.
CACHES: Final = {
    "VLLM_CACHE_ROOT": "vllm",  # DeepGEMM's too
    "TRITON_CACHE_DIR": "triton",
    "TILELANG_CACHE_DIR": "tilelang",
    "CUTE_DSL_CACHE_DIR": "cute-dsl",  # defaults to /tmp; what calls cute.compile, as this model does, bypasses it
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TVM_FFI_CACHE_DIR": "tvm-ffi",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
    "QUACK_CACHE_DIR": "quack",
    "HUMMING_CACHE_DIR": "humming",
    "XDG_CACHE_HOME": "xdg",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that render, build, up and verify need to know."""

    profile: Profile
    engine: Engine
    checkpoint: Checkpoint
    lock: Lock
    init: Image
    serve: Image
    beside: dict[str, str]
    unlocked: tuple[str, ...]
    patches: tuple[str, ...]
    hazards: tuple[Hazard, ...]
    facts: Facts

    @property
    def project(self) -> str:
        return f"dsv4-{self.profile.name}"

    @property
    def images(self) -> tuple[Image, Image]:
        return self.init, self.serve

    @property
    def model_dir(self) -> str:
        """The checkpoint's folder inside the containers."""
        return f"{WEIGHTS_MOUNT}/{self.profile.weights.name}"

    @property
    def loader(self) -> Loader:
        """What is to load the checkpoint."""
        return Loader(release=self.facts.release, ranks=self.profile.machine.gpus, mtp=self.profile.serve.mtp)

    @property
    def labels(self) -> dict[str, str]:
        """What every container of the stack says about itself."""
        return {
            f"{LABEL}.profile": self.profile.name,
            f"{LABEL}.engine": self.engine.name,
            f"{LABEL}.checkpoint": self.checkpoint.name,
            f"{LABEL}.unlocked": "; ".join(self.unlocked),
        }

    @property
    def prepare_command(self) -> list[str]:
        user = ["--uid", f"${{DSV4_UID:-{UID}}}", "--gid", f"${{DSV4_GID:-{UID}}}"]
        return [
            "own",
            *user,
            "--enter",
            WEIGHTS_MOUNT,
            "--folders",
            self.model_dir,
            "--trees",
            CACHE_MOUNT,
            f"{CACHE_MOUNT}/home",
        ]

    @property
    def materialize_command(self) -> list[str]:
        command = ["materialize", "--base", self.checkpoint.base.reference, "--config", self.checkpoint.config.value]
        if self.checkpoint.overlay:
            command += ["--overlay", self.checkpoint.overlay.reference]
        weights = self.profile.weights
        command += ["--dest", self.model_dir, "--jobs", str(weights.jobs)]
        command += ["--stall-limit", str(weights.stall_limit_s)]
        command += [word for pattern in weights.allow for word in ("--allow", pattern)]
        if self.profile.demo_hub:
            return command
        loader = self.loader
        command += ["--for-release", str(loader.release), "--for-gpus", str(loader.ranks)]
        command += ["--for-mtp"] if loader.mtp else []
        return [*command, "--lock", LOCK_MOUNT]

    @property
    def materialize_env(self) -> dict[str, str]:
        """As Compose writes it: `${…}` is the host's variable when `docker compose up` runs."""
        shared = {
            "HF_TOKEN_PATH": "/run/secrets/hf_token",
            "DSV4_EXTRA_CA_FILE": "/run/secrets/extra_ca",
            "HF_HUB_DISABLE_TELEMETRY": '"1"',
            "HF_HUB_DISABLE_UPDATE_CHECK": '"1"',
        }
        if self.profile.demo_hub:
            return {"HF_ENDPOINT": HUB_URL, "NO_PROXY": "hub", **shared}
        passed = {name: f"${{{name}:-}}" for name in _PASSED}
        return {"HF_ENDPOINT": "${HF_ENDPOINT:-https://huggingface.co}", **shared, **passed}

    @property
    def hubs(self) -> list[dict[str, list[str]]]:
        """The demo's own Hub, or none."""
        hub = {
            "command": ["demo-hub", "--host", "0.0.0.0", "--port", "8000"],  # noqa: S104 - of the container
            "healthcheck": ["CMD", "python3", "-m", "dsv4_stack.guest", "health", "http://127.0.0.1:8000/healthz"],
        }
        return [hub] if self.profile.demo_hub else []

    @property
    def lock_mounts(self) -> list[dict[str, str]]:
        """dsv4.lock for the materializer, where there is something to hold it against."""
        return [{"source": "../dsv4.lock", "target": LOCK_MOUNT}] if repos_of(self.checkpoint) else []

    @property
    def gpu_reservations(self) -> list[int]:
        return [self.profile.machine.gpus] if self.profile.machine.gpus else []

    def laid_over(self, asked: Collection[str]) -> tuple[str, ...]:
        """The overlays that are asked for, in their order; where GPUs are, monitoring watches them too."""
        gpus = {GPU_METRICS} if MONITORING in asked and self.profile.machine.gpus else set()
        return tuple(name for name in OVERLAYS if name in {*asked, *gpus})

    @property
    def weights_source(self) -> str:
        return f"${{DSV4_WEIGHTS_DIR:-{self.profile.weights.directory}}}"

    @property
    def published_port(self) -> str:
        return f"${{DSV4_BIND:-{self.profile.serve.bind}}}:${{DSV4_PORT:-{self.profile.serve.port}}}:8000"

    @property
    def cache_volume(self) -> str:
        """One for each engine and GPU architecture: kernels that are compiled for one are of no use to another."""
        capability = self.profile.machine.compute_capability.replace(".", "")
        return f"dsv4-cache-{self.engine.name}-{f'sm{capability}' if capability else 'cpu'}"

    @property
    def cache_label(self) -> str:
        """Whose kernels the cache volume holds, as an archive of it says."""
        return f"{self.cache_volume}, vLLM {self.engine.version}"

    weights_mount = WEIGHTS_MOUNT
    cache_mount = CACHE_MOUNT
    run_mount = RUN_MOUNT
    uid = UID

    @property
    def serve_command(self) -> list[str]:
        serve = self.profile.serve
        own: dict[str, Setting] = {
            "served-model-name": serve.name,
            "host": "0.0.0.0",  # noqa: S104 - of the container; the published address is the profile's
            "port": 8000,
            "shutdown-timeout": serve.drain_s,
        }
        draft: dict[str, Setting] = {SPECULATIVE: MTP} if serve.mtp else {}
        return [word for flag, value in (own | serve.flags | draft).items() for word in flag_words(flag, value)]

    @property
    def serve_env(self) -> dict[str, str]:
        caches = {name: f"{CACHE_MOUNT}/{folder}" for name, folder in CACHES.items()}
        own = {
            "DSV4_MODEL_DIR": self.model_dir,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_ENGINE_READY_TIMEOUT_S": str(self.profile.serve.ready_timeout_s),
            "DSV4_QUESTION": json.dumps(asdict(self.question)),
            "DSV4_PATIENCE": json.dumps(asdict(self.patience)),
            "DSV4_WARM": json.dumps(self.profile.serve.warm_lengths),
            "DSV4_GPUS": str(self.profile.machine.gpus),
            # What keeps its caches in no folder of these keeps them at home; and a user of no name needs one.
            "HOME": f"{CACHE_MOUNT}/home",
            "USER": "dsv4",
        }
        return own | caches | self.profile.serve.env

    @property
    def question(self) -> Question:
        """What the watch and `dsv4 verify` ask."""
        probe = self.profile.probe
        return Question(
            model=self.profile.serve.name,
            prompt=probe.prompt,
            max_tokens=probe.max_tokens,
            expect=probe.expect,
            token_ids=probe.token_ids,
        )

    @property
    def patience(self) -> Patience:
        serve, health = self.profile.serve, self.profile.health
        return Patience(ready_s=serve.ready_timeout_s, drain_s=serve.drain_s, **asdict(health))

    @property
    def beware(self) -> list[str]:
        """The engine's hazards that this profile's settings do not avoid."""
        env = self.serve_env
        return [
            f"{hazard.name}: {hazard.what}"
            for hazard in self.hazards
            if not hazard.refuses and not (hazard.env and hazard.env.items() <= env.items())
        ]


def flag_words(flag: str, value: Setting) -> list[str]:
    """`--flag`, `--flag value` or nothing, as `profile.Setting` says."""
    if value is False or value == {}:
        return []
    if value is True:
        return [f"--{flag}"]
    return [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]


def make_plan(pins: Pins, profile: Profile, lock: Lock, *, engine: str = "") -> Plan:
    """`pins` are those with the lock applied. Raises ConfigError with every contradiction at once."""
    chosen = engine_named(pins, engine or profile.engine)
    checkpoint = pins.checkpoints.get(profile.checkpoint)
    if checkpoint is None:
        raise ConfigError(
            f"profile {profile.name}: checkpoint: there is no {profile.checkpoint!r} in pins.toml",
            f"choose one of: {', '.join(pins.checkpoints)}",
        )
    _reject_contradictions(profile, chosen, checkpoint)
    _reject_refused(pins, profile, chosen)
    return Plan(
        profile=profile,
        engine=chosen,
        checkpoint=checkpoint,
        lock=lock,
        init=init_image(pins),
        serve=serve_image(pins, chosen),
        beside=pins.beside,
        unlocked=tuple(unlocked([chosen], [checkpoint], lock)),
        patches=tuple(patch.name for patch in matrix.needed(pins, chosen)),
        hazards=matrix.hazards(pins, chosen),
        facts=pins.releases[chosen.releases[0]],
    )


def _reject_contradictions(profile: Profile, engine: Engine, checkpoint: Checkpoint) -> None:
    problems = []
    ranks = profile.serve.flags.get("tensor-parallel-size", 1)
    if profile.machine.gpus and ranks != profile.machine.gpus:
        problems.append(f"serve.flags.tensor-parallel-size: is {ranks}, but machine.gpus is {profile.machine.gpus}")
    if checkpoint.seeded != profile.demo_hub:
        problems.append("demo_hub: belongs to the seeded checkpoint, and only to it")
    if (engine.image == "serve-cpu") != (profile.machine.gpus == 0):
        problems.append(f"engine: {engine.name} does not go with machine.gpus = {profile.machine.gpus}")
    if problems:
        raise ConfigError(
            f"profile {profile.name} contradicts itself:\n" + "\n".join(f"  {problem}" for problem in problems),
            f"mend {profile.files[-1]}",
        )


def _reject_refused(pins: Pins, profile: Profile, engine: Engine) -> None:
    """An option that cannot work with the engine, with the reason."""
    if not profile.serve.mtp:
        return
    if SPECULATIVE in profile.serve.flags:
        raise ConfigError(
            f"profile {profile.name}: serve.mtp and serve.flags.{SPECULATIVE} both choose the draft",
            f"drop one of them in {profile.files[-1]}",
        )
    if reason := matrix.refused(pins, engine).get("mtp"):
        able = [name for name, other in pins.engines.items() if "mtp" not in matrix.refused(pins, other)]
        raise ConfigError(
            f"profile {profile.name}: serve.mtp cannot work with engine {engine.name}: {reason}",
            f"choose one of: {', '.join(able)}; or leave mtp off",
        )
