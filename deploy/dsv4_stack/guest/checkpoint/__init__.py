"""One checkpoint directory: what it shall hold, what it holds, and how that is written down."""
