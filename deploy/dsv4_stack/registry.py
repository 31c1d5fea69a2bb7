"""The digest behind an image's tag, asked of its registry without a Docker engine.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md and https://distribution.github.io/distribution/spec/auth/token/
"""

import re
from typing import Final
from urllib.parse import urlencode

from dsv4_stack.errors import NetworkError
from dsv4_stack.guest import http

_DOCKER_HUB: Final = "https://registry-1.docker.io"
_DIGEST: Final = re.compile("sha256:[0-9a-f]{64}")
_MANIFESTS: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


def digest(image: str) -> str:
    """`sha256:…` of `[host/]name:tag`: the index of all platforms where there is one.

    Raises NetworkError, NotAllowedError, NotFoundError.
    """
    url = manifest_url(image)
    headers = http.head(url, {"Accept": _MANIFESTS, **_authorization(http.challenge(url))})
    found = headers.get("Docker-Content-Digest", "")
    if not _DIGEST.fullmatch(found):
        raise NetworkError(f"{url}: the registry does not say its digest", "pin the image by digest in pins.toml")
    return found


def manifest_url(image: str) -> str:
    """As Docker reads names: a first part with a dot or a port is a host, and names of one part are in library/."""
    name, _, tag = image.rpartition(":")
    host, _, path = name.partition("/")
    if path and (":" in host or "." in host):
        scheme = "http" if host.partition(":")[0] == "127.0.0.1" else "https"
        return f"{scheme}://{host}/v2/{path}/manifests/{tag}"
    return f"{_DOCKER_HUB}/v2/{name if path else f'library/{name}'}/manifests/{tag}"


def _authorization(challenge: str) -> dict[str, str]:
    """The header for what the registry wants; a token for anybody is given to anybody."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not realm:
        return {}
    answer = http.get_json(f"{realm}?{urlencode(fields)}", direct=False)
    return {"Authorization": f"Bearer {answer.get('token') or answer.get('access_token', '')}"}
