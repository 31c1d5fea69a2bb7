"""The benchmarks run from end to end, at sizes whose figures mean nothing; what does not depend on size holds."""

import re
import sys
from pathlib import Path

from helpers.process import ROOT, run

BENCH = ROOT / "scripts/bench"


def test_the_benchmark_measures_everything(tmp_path: Path) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    places = ("--memory", memory, "--disk", disk, "--image", "dsv4-stack/no-such-image")
    done = run(sys.executable, BENCH / "materialize.py", "--quick", *places, timeout=600)
    # Its exit code depends on the speed at sizes that say nothing about it.
    assert done.returncode in (0, 1), done.stderr
    assert re.findall(r"^### (.*?)(?:: .*)?$", done.stdout, re.MULTILINE) == [
        "Cold, to a tmpfs",
        "Cold, to a disk",
        "Cold, slow connections",
        "Resume after kill -9",
        "Warm",
        "--deep",
        "Bars",
    ]
    verdicts = dict(re.findall(r"^\| ([^|]+) \| [^|]* \| at [^|]+ \| ([^|]+) \|$", done.stdout, re.MULTILINE))
    assert len(verdicts) == 15
    assert {name: verdict for name, verdict in verdicts.items() if name in SIZELESS} == SIZELESS
    assert list(memory.iterdir()) == list(disk.iterdir()) == []


SIZELESS = {
    "cold: peak memory": "holds",
    "resume: orphan bytes": "holds",
    "warm, container: s over `true`": "not measured",
    "warm: requests": "holds",
}


def test_the_fault_matrix_finds_that_promises_hold(tmp_path: Path) -> None:
    chosen = "SIGTERM|wrong bytes of the right size, always|page of HTML"
    # Large enough that the second half is still coming when the signal for the first does.
    flags = ("--only", chosen, "--kills", "0", "--shard-mib", "32", "--place", tmp_path)
    done = run(sys.executable, BENCH / "faults.py", *flags, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("\nevery promise holds\n")
    # hf download takes wrong bytes for right ones, which shows that the matrix sees it.
    exits = re.findall(r"^\| wrong bytes of the right size, always \| ([^|]+) \| [\d.]+ \|", done.stdout, re.MULTILINE)
    assert exits == ["6", "0, with wrong files"]
    assert list(tmp_path.iterdir()) == []
