#!/bin/sh
# usage: install-wheel.sh URL VERSION [SHA256]
# Puts one vLLM wheel over the vLLM of the base image. The wheel's requirements are resolved with the base's torch held
# fast; then vLLM is of that version, torch has not moved, and no package misses a requirement that was met before.
set -eu
url=$1
version=$2
sha256=${3:-}

export UV_NO_CACHE=1 UV_SYSTEM_PYTHON=1 UV_BREAK_SYSTEM_PACKAGES=1
fail() {
  printf 'error: %s\n  next: %s\n' "$1" "$2" >&2
  exit "$3"
}

# vLLM's images install with uv; pip is there on most others.
if command -v uv >/dev/null; then
  install() { uv pip install "$@"; }
  uninstall() { uv pip uninstall "$@"; }
  check() { uv pip check 2>&1 || true; }
else
  install() { python3 -m pip install --no-cache-dir --break-system-packages --disable-pip-version-check "$@"; }
  uninstall() { python3 -m pip uninstall --yes --break-system-packages --disable-pip-version-check "$@"; }
  check() { python3 -m pip --disable-pip-version-check check 2>&1 || true; }
fi
version_of() { python3 -c "import importlib.metadata as m; print(m.version('$1'))"; }
# The conflicts alone: the summary lines count packages and milliseconds.
conflicts() { check | grep -E 'requires|has requirement|not supported' | sed 's/^ *//' | sort -u || true; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# An extra CA is added to the system's own, for this build alone.
if [ -s /run/secrets/extra_ca ]; then
  cat /etc/ssl/certs/ca-certificates.crt /run/secrets/extra_ca >"$work/ca.pem"
  export PIP_CERT="$work/ca.pem" SSL_CERT_FILE="$work/ca.pem"
fi
torch=$(version_of torch)
conflicts >"$work/before"

python3 - "$url" "$sha256" "$work" <<'PYTHON'
import hashlib, json, pathlib, sys, urllib.error, urllib.parse, urllib.request

url, expected, work = sys.argv[1:]
wheel = pathlib.Path(work, urllib.parse.unquote(url.rsplit("/", 1)[1]))
digest = hashlib.sha256()
try:
    with urllib.request.urlopen(url, timeout=60) as response, wheel.open("wb") as file:
        while block := response.read(1 << 20):
            digest.update(block)
            file.write(block)
except urllib.error.HTTPError as error:
    print(f"error: {url} answered {error.code}\n  next: check the engine's wheel in pins.toml", file=sys.stderr)
    sys.exit(4 if error.code == 404 else 8)
except OSError as error:
    print(f"error: {url} could not be fetched: {error}\n  next: build again when the network is back", file=sys.stderr)
    sys.exit(8)
if expected and digest.hexdigest() != expected:
    print(f"error: {url} has sha256 {digest.hexdigest()}, the lock says {expected}\n  next: run: dsv4 lock --check", file=sys.stderr)
    sys.exit(6)
record = {"url": url, "sha256": digest.hexdigest(), "size": wheel.stat().st_size, "locked": bool(expected)}
pathlib.Path(work, "wheel.json").write_text(json.dumps(record))
PYTHON

echo "torch==$torch" >"$work/constraints.txt"
{ install --constraint "$work/constraints.txt" "$work"/*.whl && touch "$work/installed"; } 2>&1 | tee "$work/said"
if [ ! -e "$work/installed" ]; then
  # As uv and as pip put it.
  if grep -qE 'No solution found|ResolutionImpossible' "$work/said"; then
    fail "the wheel cannot be installed beside torch $torch" "choose a base image with the torch that the wheel wants" 3
  fi
  fail "the wheel cannot be installed; what the installer said stands above" "mend that, or build again when the network is back" 8
fi

[ "$(version_of vllm)" = "$version" ] || fail "vLLM is $(version_of vllm) now, not $version" "check the engine's version and wheel in pins.toml" 3
[ "$(version_of torch)" = "$torch" ] || fail "torch moved from $torch to $(version_of torch)" "choose a base image with the torch that the wheel wants" 3
# FlashInfer refuses to start where its ahead-of-time cache is of another version, and no requirement ties the two.
version_or_none() { version_of "$1" 2>/dev/null | sed 's/+.*//' || true; }
cache=$(version_or_none flashinfer-jit-cache)
if [ -n "$cache" ] && [ "$cache" != "$(version_or_none flashinfer-python)" ]; then
  echo "flashinfer-jit-cache $cache does not go with flashinfer-python $(version_or_none flashinfer-python): removed, kernels are compiled on first use"
  uninstall flashinfer-jit-cache
fi
conflicts >"$work/after"
if comm -13 "$work/before" "$work/after" | grep .; then
  fail "the wheel breaks the requirements above" "choose a base image nearer to the wheel's commit" 3
fi

mkdir -p /opt/dsv4
python3 - "$work/wheel.json" <<'PYTHON'
import importlib.metadata, json, pathlib, sys

record = {"wheel": json.loads(pathlib.Path(sys.argv[1]).read_text())}
record |= {name: importlib.metadata.version(name) for name in ("vllm", "torch")}
pathlib.Path("/opt/dsv4/build.json").write_text(json.dumps(record, indent=2) + "\n")
print(json.dumps(record))
PYTHON
