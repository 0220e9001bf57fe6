"""The small world that nano knows: what is said in it, shown and heard, and what of it training never sees."""
