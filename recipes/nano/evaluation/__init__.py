"""How well a checkpoint answers and speaks, counted on what no training saw."""
