"""What every stage that trains has in common: a budget, a schedule, one step, its state on disk, and the loop."""
