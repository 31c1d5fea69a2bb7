"""What stands beside a running engine: is it ready, does it move, is its answer right, and what to do when not."""
