"""What the benchmarks of the materializer share: a Hub, a checkpoint, processes that are measured, and tables."""
