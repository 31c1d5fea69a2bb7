"""Single files that vLLM's own processes import, from a folder that holds nothing else."""
