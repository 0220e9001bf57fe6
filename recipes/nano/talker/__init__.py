"""The voice: text tokens to frames of sixteen codes, by the Talker and its code predictor."""
