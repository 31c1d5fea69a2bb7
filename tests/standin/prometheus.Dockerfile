# The real Prometheus, from Debian, for where its own image cannot be pulled; wget, which that one has, checks its health.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN set -eu; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus wget >/dev/null; \
    rm -rf /var/lib/apt/lists/*; \
    install -d -o 65534 -g 65534 /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
