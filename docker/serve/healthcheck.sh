#!/bin/sh
# What the watch says: it has asked the engine a question whose answer is known, and sees whether it moves.
PYTHONPATH=/opt/dsv4 exec python3 -P -B -m dsv4_stack.guest health "http://127.0.0.1:${DSV4_NOTICE_PORT:-8001}/ready"
