# A browser, from Debian, to look at the dashboard with.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN set -eu; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium-headless-shell fonts-dejavu-core >/dev/null; \
    rm -rf /var/lib/apt/lists/*
