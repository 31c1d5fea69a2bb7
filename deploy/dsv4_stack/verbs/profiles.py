"""`dsv4 profiles`: what there is to choose from."""

import argparse

from dsv4_stack import profile
from dsv4_stack.verbs.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    shipped = profile.shipped()
    if args.json:
        keys = ("description", "checkpoint", "engine")
        print_json([{"name": name} | {key: getattr(entry, key) for key in keys} for name, entry in shipped.items()])
        return
    width = max(map(len, shipped))
    for name, entry in shipped.items():
        default = " (default)" if name == profile.DEFAULT else ""
        print(f"{name:{width}}  {entry.description}{default}")
