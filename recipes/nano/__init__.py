"""A training recipe for a small model of the Qwen3-Omni architecture: `python -m recipes.nano --help`."""
