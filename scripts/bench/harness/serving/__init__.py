"""A serving stack in every fault that can be made on one machine, and a plain `vllm serve` container beside it."""
