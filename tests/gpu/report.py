"""`python -m gpu.report RESULTS`: the sections of docs/hopper.md that the GPU tests' JSON files answer."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dsv4_stack.plan import CACHE_MOUNT

Result = Mapping[str, Any]
LENGTHS: Final = ("1024", "8192", "16384", "24576")


def report(results: Mapping[str, Result]) -> str:
    """Results by name, as the tests record them; those that are missing have no section."""
    return "\n\n".join(_SECTIONS[name](results[name]) for name in _SECTIONS if name in results)


def read(directory: Path) -> dict[str, Result]:
    """The JSON files of a directory by their names."""
    return {file.stem: json.loads(file.read_bytes()) for file in sorted(directory.glob("*.json"))}


def _clamp(result: Result) -> str:
    head = [
        *("shapes", "input", "largest gate or up", "gates past 10", "with 0005: max / mean abs, relative"),
        *("without: max / mean abs, relative", "W4A8 against unrounded: relative"),
    ]
    rows = [
        [
            f"{row['tp']}, intermediate {row['intermediate']:,}",
            row["input"],
            f"{row['largest']:.1f}",
            f"{row['gates_past']:.1%}",
            *(_errors(row[variant]["w4a8"]) for variant in ("with", "without")),
            f"{row['reference_w4a8']['relative']:.2%}",
        ]
        for row in result["rows"]
    ]
    return f"""\
## What the clamp does

`tests/gpu/test_clamp.py`: one layer through vLLM's own CUTLASS W4A8 experts, with patch 0005 and with the file as
published, against `tests/gpu/moe.py`, which calculates in FP32 what W4A8 arithmetic makes of the same weights. Hidden
size {result["hidden"]:,}, {result["experts"]} experts, {result["topk"]} of them for each of {result["tokens"]} \
tokens, groups of 128, swiglu_limit {result["limit"]:g}. A relative
error is the norm of the difference over the norm of the reference. The last column is what quantizing costs, in the
reference alone.

{_table(head, rows)}"""


def _errors(errors: Result) -> str:
    return f"{errors['max_abs']:.3g} / {errors['mean_abs']:.3g}, {errors['relative']:.2%}"


def _machine(result: Result) -> str:
    return f"Machine: {', '.join(result['gpus'])}; {result['cpus']} cores."


def _serving(result: Result) -> str:
    whole = result["w4a8"]
    rows = [[_left_out(name), _outcome(row, whole), row.get("transformers", "")] for name, row in result.items()]
    return f"""\
## Each patch left out

`tests/gpu/test_serving.py`: 3 layers, 16 experts, real tensor names; a prompt of 300 tokens, 8 generated.

{_table(["left out", "outcome", "Transformers"], rows)}

What the logs say of methods and kernels:

{_choices("W4A8", whole)}

{_choices("W4A16", result["w4a16"])}"""


def _left_out(name: str) -> str:
    name, *more = name.split(" ", 1)
    what = {"w4a8": "nothing", "w4a16": "nothing; the W4A16 twin"}.get(name, name)
    return ", ".join([what, *more])


def _outcome(row: Result, whole: Result) -> str:
    if "error" in row:
        return f"`{' '.join(row['error'].split())}`"
    return "generates the same tokens" if row["tokens"] == whole.get("tokens") else f"generates {row['tokens']}"


def _mtp(result: Result) -> str:
    off = result["mtp-off"]
    rows = [[name, _outcome(row, off), _drafts(row)] for name, row in result.items()]
    return f"""\
## The MTP draft

`tests/gpu/test_mtp.py`: the same 3 layers with a draft; a prompt of 300 tokens, {len(off["tokens"])} generated.
`mtp-off` has the option off; the draft of `mtp-bf16` is BF16, all others' are quantized as the model's layers are.

{_table(["engine", "outcome", "drafted / accepted"], rows)}"""


def _drafts(row: Result) -> str:
    drafts = row.get("drafts")
    return f"{drafts['num_draft_tokens']} / {drafts['num_accepted_tokens']}" if drafts else ""


def _choices(name: str, row: Result) -> str:
    return "\n".join([f"- {name}", *(f"  - `{line}`" for line in row["choices"])])


def _ladder(result: Result) -> str:
    measured = [row for row in result["rows"] if "error" not in row]
    rows = [[row["name"], *(_milliseconds(row[length]) for length in LENGTHS)] for row in measured]
    rows += [
        [f"{row['name']} : {measured[0]['name']}", *(f"{_ratio(row, measured[0], length):.3f}" for length in LENGTHS)]
        for row in measured[1:]
    ]
    rows += [[row["name"], row["error"], "", "", ""] for row in result["rows"] if "error" in row]
    least = min((layer["used"] for row in measured for layer in row["routing"]), default=0)
    busiest = max((layer["busiest"] for row in measured for layer in row["routing"]), default=0.0)
    firsts = [
        [row["name"], f"{row['start']['load_s']:.1f}", *(f"{row['firsts'][length][0]:.1f}" for length in LENGTHS)]
        for row in measured
    ]
    lengths = [f"{int(length):,} tokens" for length in LENGTHS]
    return f"""\
## Prefill

`tests/gpu/test_ladder.py`: 8 layers, 256 experts, one TP2 rank's shapes, random weights, no hash routing; one engine
after the other. Median of {result["rounds"]} prompts (least to most), in ms; the number after the checkpoint's kind is
max_num_batched_tokens.

{_table(["engine", *lengths], rows)}

{_drift(result["drift"])}

In every layer the tokens of a prompt went to {least} experts or more, and to none more than {busiest:.1%} of them.

The first prompt of a length compiles kernels; seconds to load and of each first prompt:

{_table(["engine", "load", *lengths], firsts)}"""


def _drift(drift: Mapping[str, float]) -> str:
    if not drift:
        return "The first engine was not measured again."
    least, most = min(drift.values()), max(drift.values())
    return f"""\
Started again, the first engine took {least:.3f} to {most:.3f} of what it had taken: a smaller difference between the
others says nothing."""


def _milliseconds(times: Result) -> str:
    return f"{times['median_ms']:.1f} ({times['min_ms']:.1f} to {times['max_ms']:.1f})"


def _ratio(row: Result, base: Result, length: str) -> float:
    ratio: float = row[length]["median_ms"] / base[length]["median_ms"]
    return ratio


def _startup(result: Result) -> str:
    starts = [(name, result[key]) for name, key in (("empty", "cold"), ("kept", "warm")) if key in result]
    rows = [[name, *_seconds(start), _cute(start)] for name, start in starts]
    if len(starts) == 2:
        cold, warm = (start["start_s"] + start["seconds"] for _, start in starts)
        rows.append(["empty : kept, to the first answer", "", "", f"{cold / warm:.1f}", "", ""])
    folders = sorted(result["cold"]["folders"].items(), key=lambda item: -item[1]["waited_s"])
    sizes = [
        [_cached(name), f"{folder['files']:,}", f"{folder['bytes'] / 1e6:,.1f}", f"{folder['waited_s']:.0f}"]
        for name, folder in folders
    ]
    added = _names(result["added"]) if "added" in result else "not started"
    return f"""\
## Start-up and its caches

`tests/gpu/test_startup.py`: the checkpoint of 3 layers and 16 experts, every cache where the stack's volume has it, in
seconds. What `cute.compile` makes no cache holds; counted to the end of the first answer.

{_table(["caches", "load", "to ready", "first answer, 300 tokens", "second answer", "`cute.compile`"], rows)}

What the first start and its answers left. Waited: the seconds between a file and the one written before it, added up.

{_table(["folder", "files", "MB", "waited, s"], sizes)}

Files that the start on kept caches added: {added}."""


def _missing(result: Result) -> str:
    rows = [
        [missing, row["error"], ""] if "error" in row else [missing, f"{row['start_s']:.0f}", f"{row['seconds']:.1f}"]
        for missing, row in ((_cached(name) if name else "none", row) for name, row in result.items())
    ]
    return f"""\
### One folder missing

One start after the other on the kept caches, each with one folder moved away, in seconds.

{_table(["missing", "to ready", "first answer"], rows)}"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _seconds(start: Result) -> Sequence[str]:
    return [f"{start[key]:.1f}" for key in ("load_s", "start_s", "seconds", "again_s")]


def _cute(start: Result) -> str:
    return f"{start['cute_calls']} in {start['cute_s']:.1f} s" if "cute_s" in start else "not counted"


def _imported(result: Result) -> str:
    archive, imported = result["archive"], result["imported"]
    empty, seconds = (start["start_s"] + start["seconds"] for start in (result["cold"], imported))
    megabytes = f"{archive['bytes'] / 1e6:,.1f} MB"
    return f"""\
### Imported caches

| | |
| --- | --- |
| archive | {archive["files"]:,} files, {megabytes}, packed {archive["packed_bytes"] / 1e6:,.1f} MB |
| export, import | {archive["pack_s"]:.1f} s, {archive["unpack_s"]:.1f} s |
| load, to ready, first answer, second answer | {", ".join(f"{value} s" for value in _seconds(imported))} |
| to the first answer | {seconds:.1f} s; on empty caches {empty:.1f} s |
| imported : empty, to the first answer | {seconds / empty:.3f} |
| kernels that TileLang says it compiles | {imported["compiles"]}; on empty caches {result["cold"]["compiles"]} |
| `cute.compile`, to the first answer | {_cute(imported)}; on empty caches {_cute(result["cold"])} |
| files of the archive that were written again | {_names(result["written_again"])} |
| files that came to it | {_names(result["added"])} |"""


def _names(files: Sequence[str]) -> str:
    return ", ".join(map(_cached, files[:20])) or "none"


def _cached(file: str) -> str:
    """Where a container has it."""
    return f"`{CACHE_MOUNT}/{file}`"


def _loaders(result: Result) -> str:
    rows = [
        [row["name"], row["error"], "", "", "", ""]
        if "error" in row
        else [
            row["name"],
            "; ".join(row["back_end"]),
            f"{row['resident_before']:.0%} / {row['resident_after']:.0%}",
            f"{row['weights_s']:.1f}",
            f"{result['bytes'] / row['weights_s'] / 1e9:.2f}",
            f"{row['model_s']:.1f}" if "model_s" in row else "",
        ]
        for row in result["rows"]
    ]
    units = ("weights, s", "GB/s", "model, s")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    return f"""\
## Loaders

`tests/gpu/test_loaders.py`: {result["bytes"] / 1e9:.1f} GB in {result["files"]} files; {versions}. As vLLM logs it:
"Loading weights took", and of one "Model loading took", which adds what is made of the weights. The page cache is the
machine's own, read with mincore before and after; warm with FASTSAFETENSORS_ODIRECT=0 and
INSTANTTENSOR_BACKEND=BUFFERED, cold as the packages choose themselves.

{_table(["loader, state", "back end, as far as it says", "in the page cache before / after", *units], rows)}"""


_SECTIONS: Final = {
    "machine": _machine,
    "clamp": _clamp,
    "serving": _serving,
    "mtp": _mtp,
    "ladder": _ladder,
    "startup": _startup,
    "imported": _imported,
    "missing": _missing,
    "loaders": _loaders,
}


def main(arguments: Iterable[str]) -> None:
    (directory,) = arguments
    print(report(read(Path(directory))))


if __name__ == "__main__":
    main(sys.argv[1:])
