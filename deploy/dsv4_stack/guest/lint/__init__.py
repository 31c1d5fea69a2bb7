"""What vLLM would make of a checkpoint's config.json, known before anything is loaded."""
