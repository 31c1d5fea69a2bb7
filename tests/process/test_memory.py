"""How much memory `dsv4 materialize` takes, in a process of its own, of a checkpoint with a real one's many tensors."""

import sys
from pathlib import Path

import pytest
from harness import checkpoint, cold, hub
from harness.contenders import DSV4
from harness.rounds import Rounds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

MIB = 1 << 20


def test_shards_of_a_hundred_thousand_tensors_over_all_connections(tmp_path: Path) -> None:
    """The bar of docs/materialize.md. Connections are slow, so that there are as many as there may be."""
    wanted = checkpoint.write(tmp_path / "hub", "org/real", shards=4, shard_bytes=24 * MIB, tensors=105_000)
    with hub.serving(tmp_path / "hub", tmp_path / "hub.log") as server:
        server.set(rate=1.5e6, latency_s=0.05)
        found = cold.measure([DSV4], server, wanted, tmp_path, Rounds(kept=1, dropped=0))
    assert found[DSV4].rss_bytes <= 64 * MIB
