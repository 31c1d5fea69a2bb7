#!/bin/sh
# Weights as in their manifest and patches in effect, checked at every start (`compose restart` and a reboot bypass the
# init container), then vLLM under a watch, in this process's place, so that it gets SIGTERM itself.
set -eu

: "${DSV4_MODEL_DIR:?names the materialized directory, for example /weights/DeepSeek-V4-Flash-W4A8-FP8}"

# The path is for the watch alone: vLLM must not see it, but what the image had before.
export DSV4_PYTHONPATH="${PYTHONPATH:-}"
PYTHONPATH=/opt/dsv4 exec python3 -P -B -m dsv4_stack.guest serve "$DSV4_MODEL_DIR" -- vllm serve "$DSV4_MODEL_DIR" "$@"
