"""What is measured, and how; run from the repository with `python benchmarks/voice_turn.py`."""
