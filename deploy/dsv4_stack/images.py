"""The images of the stack: what is built for the init container, and for each engine. They depend on pins alone."""

from dataclasses import dataclass
from typing import Final

from dsv4_stack import __version__, assets, matrix
from dsv4_stack.context import Context, image_context
from dsv4_stack.guest.patching import series
from dsv4_stack.pins import Engine, Pins

LABEL: Final = "io.dsv4"


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image to build: `reference` is named by its context's hash, so it is known before the build.

    `base_variable` is the environment variable that puts another base in place of the pinned one.
    """

    service: str
    reference: str
    context: Context
    base: str
    base_variable: str


def init_image(pins: Pins) -> Image:
    labels = {"org.opencontainers.image.title": "dsv4-stack init", **_labels(pins.init_image)}
    context = image_context("init", "Dockerfile", {"base_image": pins.init_image, "labels": labels})
    return Image(
        service="materialize",
        reference=f"dsv4-stack/init:{context.digest[:12]}",
        context=context,
        base=pins.init_image,
        base_variable="DSV4_INIT_BASE",
    )


def serve_image(pins: Pins, engine: Engine) -> Image:
    """The image of an engine; the same for every profile that uses it."""
    labels = {
        "org.opencontainers.image.title": f"dsv4-stack {engine.image} {engine.name}",
        **_labels(engine.base),
        f"{LABEL}.engine": engine.name,
        f"{LABEL}.engine.version": engine.version,
        f"{LABEL}.engine.commit": engine.commit,
        f"{LABEL}.engine.wheel.sha256": (engine.wheel.sha256 or "unlocked") if engine.wheel else "",
        f"{LABEL}.patches": " ".join(patch.name for patch in matrix.needed(pins, engine)),
    }
    variables = {
        "base_image": engine.base,
        "engine": engine.name,
        "version": engine.version,
        "torch_version": engine.torch,
        "wheels": [vars(engine.wheel)] if engine.wheel else [],
        "release": str(matrix.releases_of(pins, engine)[0]),
        "patches": [patch.name for patch in series.load(assets.PATCHES)],
        "labels": {key: value for key, value in labels.items() if value},
    }
    context = image_context(engine.image, dockerfile_name(pins, engine), variables)
    return Image(
        service="serve",
        reference=f"dsv4-stack/{engine.image}:{engine.name}-{context.digest[:12]}",
        context=context,
        base=engine.base,
        base_variable="DSV4_SERVE_BASE",
    )


def dockerfile_name(pins: Pins, engine: Engine) -> str:
    """One Dockerfile per engine of an image; the one that stands first in pins.toml has the plain name."""
    first = next(other for other in pins.engines.values() if other.image == engine.image)
    return "Dockerfile" if engine == first else f"Dockerfile.{engine.name}"


def _labels(base: str) -> dict[str, str]:
    """The pinned base; `io.dsv4.base` says what the build really used."""
    name, _, digest = base.partition("@")
    return {
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}",
        "org.opencontainers.image.base.digest": digest,
    }
