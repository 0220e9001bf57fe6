"""From token ids back to text, one token at a time, never splitting a character."""


class TokenBytes:
    """The bytes of every token of a checkpoint's vocabulary; shared by all detokenizers of the checkpoint."""


class IncrementalDetokenizer:
    """The text of one answer as its tokens arrive. Special tokens have no text."""

    def __init__(self, vocabulary: TokenBytes) -> None:
        raise NotImplementedError

    def push(self, token_id: int) -> str:
        """The characters that this token completes; empty in the middle of a character."""
        raise NotImplementedError

    def finish(self) -> str:
        """What is left of a character that never became whole, as U+FFFD."""
        raise NotImplementedError
