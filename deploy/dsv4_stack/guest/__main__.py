"""`python -m dsv4_stack.guest VERB`: the way into this code inside containers."""

import sys
from typing import Final

from dsv4_stack.guest.cli import Verb, dispatch

VERBS: Final = {
    "materialize": Verb("materialize", "make one complete checkpoint directory"),
    "gate": Verb("gate", "check a directory against its manifest"),
    "patches": Verb("patches", "apply a patch series, or prove that it is in effect"),
    "own": Verb("own", "make folders, and give them to the user that the other containers run as"),
    "ready": Verb("ready", "what is checked before an engine starts"),
    "serve": Verb("serve", "an engine under a watch: checked, asked, drained"),
    "warm": Verb("warm", "make this container's engine compile its kernels"),
    "caches": Verb("caches", "an engine's compiled kernels as an archive"),
    "ask": Verb("ask", "what this container's engine serves and answers"),
    "figures": Verb("figures", "what the watch and the engine say in numbers, as JSON"),
    "health": Verb("health", "ask a URL once"),
    "key-desk": Verb("key_desk", "say who may pass the edge"),
    "demo-hub": Verb("demo_hub", "seed and serve the demo's repositories"),
}

if __name__ == "__main__":
    sys.exit(dispatch("python -m dsv4_stack.guest", "Code that runs inside the containers.", "dsv4_stack.guest", VERBS))
