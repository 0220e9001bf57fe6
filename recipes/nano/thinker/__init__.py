"""The Thinker's training: conversations laid out as rows, media heard and seen in batches, answers learnt."""
