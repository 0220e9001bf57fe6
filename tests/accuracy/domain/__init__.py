"""Held-out test items, drawn from the small world that nano knows."""
