"""The images of a pins.toml of a test's own, as its table [images] has them."""

from dsv4_stack.pins import BESIDE

IMAGE = "name:tag@sha256:" + "a" * 64
IMAGES = "".join(f'{name} = "{IMAGE}"\n' for name in ("init", *BESIDE))
