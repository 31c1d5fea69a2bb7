"""What the engine of this container serves and answers, asked from inside: for where no port of it is published."""

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from dsv4_stack.errors import ConfigError, NotReadyError
from dsv4_stack.guest.serving import question, supervisor
from dsv4_stack.guest.serving.api import Api


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """The environment of the container says everything."""


def run(_args: argparse.Namespace) -> None:
    asked = os.environ.get("DSV4_QUESTION", "")
    if not asked:
        raise ConfigError("there is no question to ask", "run it in a container of a rendered project")
    api = Api(supervisor.port(), "")
    models: Any = api.json("/v1/models")
    if models is None:
        raise NotReadyError("the API does not list its models", "run: dsv4 logs serve")
    print(json.dumps({"models": models, "answer": asdict(api.answer_to(question.of_json(asked)))}))
