#!/bin/sh
# vLLM listens only once the model is loaded and warm, so an answer of /health means ready.
PYTHONPATH=/opt/dsv4 exec python3 -P -B -m dsv4_stack.guest health http://127.0.0.1:8000/health
