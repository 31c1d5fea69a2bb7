"""What stands between an entrypoint and vLLM: weights as in their manifest, patches in effect. Milliseconds each."""

import argparse
from pathlib import Path

from dsv4_stack.guest import gate, patches
from dsv4_stack.guest.patching import series

SERIES = Path("/opt/dsv4/patches")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="the materialized checkpoint directory")
    parser.add_argument("--series", type=Path, default=SERIES, help="the patches that the image was built with")


def run(args: argparse.Namespace) -> None:
    gate.check_fast(args.directory)
    patches.in_effect(patches.find_vllm(), series.load(args.series))
