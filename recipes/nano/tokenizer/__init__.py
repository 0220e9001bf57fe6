"""The vocabulary of a run: special tokens, what is merged, and the files that a processor is made of."""
