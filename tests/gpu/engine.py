"""`python -m gpu.engine JSON`: one real vLLM in this process, asked through stdin, answering on stdout in JSON lines.

The first answer says that it is ready, or which error ended the start. Then every request
`{"length": prompt tokens, "tokens": to generate, "seed": of the prompt}` is answered with its seconds and tokens; with
`"routed": true` also with which experts it went to. One that is held says when it has imported vLLM, and starts after
the next line.
"""

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from gpu import routing
from gpu.cute_compiles import CuteCompiles

if TYPE_CHECKING:
    from vllm import LLM

Json = dict[str, Any]


def main(request: Json) -> int:
    # vLLM prints to stdout too; what it says belongs to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.meta_path.insert(0, cute := CuteCompiles())
    if request["overlay"]:
        sys.meta_path.insert(0, Overlay(Path(request["overlay"])))
    try:
        llm, started = _start(request, answers)
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        raise
    _say(answers, started | cute.so_far())
    for line in sys.stdin:
        _say(answers, _generate(llm, **json.loads(line)) | cute.so_far())
    # Nothing is to be kept, and an orderly end takes seconds.
    os._exit(0)


class Overlay(MetaPathFinder):
    """Takes every module that has a file below `root` from there."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        file = self.root / f"{fullname.replace('.', '/')}.py"
        return spec_from_file_location(fullname, file) if file.is_file() else None


def _start(request: Json, answers: IO[str]) -> "tuple[LLM, Json]":
    begin = time.monotonic()
    import torch
    import transformers
    import vllm
    from vllm import LLM

    import_s = time.monotonic() - begin
    if request["hold"]:
        _say(answers, {"import_s": import_s})
        sys.stdin.readline()
    imported = time.monotonic()
    llm = LLM(model=request["model"], **request["arguments"])
    loaded = time.monotonic()
    return llm, {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gpu": torch.cuda.get_device_name(),
        "ready_at": time.time(),
        "import_s": import_s,
        "load_s": loaded - imported,
    }


def _generate(llm: "LLM", *, length: int, tokens: int, seed: int, routed: bool = False) -> Json:
    from vllm import SamplingParams

    layers = llm.apply_model(routing.watch)[0] if routed else []
    draw = random.Random(seed)  # noqa: S311
    prompt = {"prompt_token_ids": [draw.randrange(10, 4000) for _ in range(length)]}
    parameters = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    begin = time.monotonic()
    (answer,) = llm.generate([prompt], parameters, use_tqdm=False)
    seconds = time.monotonic() - begin
    return {
        "seconds": seconds,
        "tokens": list(answer.outputs[0].token_ids),
        "drafts": _drafts(llm),
        "routing": [routing.spread(counts.tolist(), length) for counts in layers],
    }


def _drafts(llm: "LLM") -> dict[str, int]:
    """What the engine has counted of its speculative decoding since it started; nothing where it does none."""
    from vllm.v1.metrics.reader import Counter

    if llm.llm_engine.vllm_config.speculative_config is None or not llm.llm_engine.log_stats:
        return {}
    counters = (metric for metric in llm.get_metrics() if isinstance(metric, Counter))
    prefix = "vllm:spec_decode_"
    return {metric.name.removeprefix(prefix): metric.value for metric in counters if metric.name.startswith(prefix)}


def _say(answers: IO[str], answer: Json) -> None:
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
