"""The small world that nano knows, and held-out test items drawn from it."""
