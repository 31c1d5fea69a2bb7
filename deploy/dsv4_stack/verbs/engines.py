"""`dsv4 engines`: what there is to serve with, what each still needs and why, and what to beware of."""

import argparse
from typing import Any

from dsv4_stack import assets, lock, matrix, pins
from dsv4_stack.verbs.common import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    add_json(form)
    form.add_argument("--markdown", action="store_true", help="print README's table")


def run(args: argparse.Namespace) -> None:
    pinned = lock.apply(pins.load(assets.pins_file()), lock.load(assets.known_lock()))
    found = matrix.rows(pinned)
    entries = [matrix.summary(row) for row in found]
    if args.json:
        print_json(entries)
    elif args.markdown:
        print(matrix.markdown(entries), end="")
    else:
        print("\n\n".join("\n".join(_text(entry)) for entry in entries))


def _text(entry: dict[str, Any]) -> list[str]:
    default = ", the default" if entry["default"] else ""
    return [
        f"{entry['engine']}{default}: {entry['about']}",
        f"  vLLM {entry['vllm']}, model runner {entry['model_runner']}",
        f"  torch {entry['torch']}, transformers {entry['transformers']}",
        f"  image {entry['base']}" + ("" if entry["locked"] else " (unlocked: dsv4 lock)"),
        *(f"  needs {patch['patch']}: {patch['why']}" for patch in entry["patches"]),
        *(f"  upstream since {patch['since']}: {patch['patch']}" for patch in entry["upstream"]),
        "  MTP: " + ("opt-in" if entry["mtp"]["possible"] else f"refused: {entry['mtp']['why']}"),
        *(
            f"  beware, {hazard['name']}: {hazard['what']}; {hazard['mend']} ({hazard['source']})"
            for hazard in entry["hazards"]
        ),
    ]
