"""Send this container's engine the prompts that make it compile its kernels; prints what each took, as JSON."""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from dsv4_stack.errors import NotReadyError
from dsv4_stack.guest.serving import supervisor, warmth
from dsv4_stack.guest.serving.api import Api

WITHIN_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lengths", nargs="*", type=int, metavar="N", help="tokens (default: as the profile says)")


def run(args: argparse.Namespace) -> None:
    api = Api(supervisor.port(), "")
    vocabulary = warmth.vocabulary_of(Path(os.environ.get("DSV4_MODEL_DIR", "")))
    lengths = args.lengths or warmth.lengths()
    found = list(warmth.warm(api, lengths, vocabulary, WITHIN_S, occasion=time.time_ns()))
    if problems := [f"  {each}" for each in found if each.problem]:
        raise NotReadyError("the engine was not warmed:\n" + "\n".join(problems))
    print(json.dumps([asdict(each) for each in found]))
