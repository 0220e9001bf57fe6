"""Whether the embedded default model, asked through the API, answers and speaks as well as it was measured to."""
