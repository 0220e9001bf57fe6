"""What is measured from inside; run from the repository, such as `python benchmarks/profile_turn.py`."""
