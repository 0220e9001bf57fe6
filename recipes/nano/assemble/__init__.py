"""Puts the trained parts together into a checkpoint that transformers and Antiphon load."""
