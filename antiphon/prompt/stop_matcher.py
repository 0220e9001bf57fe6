"""Stop strings over a stream of tokens: what text, and which tokens, are surely before a stop."""

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.prompt.detokenizer import TokenBytes


@dataclass(frozen=True, slots=True)
class Released:
    """What became certain with the last token."""

    text: str
    # Tokens whose whole text stands before any stop, oldest first: these may be spoken.
    token_ids: tuple[int, ...]
    # A stop string is complete: the answer ends here, nothing further is pushed.
    stopped: bool = False


class StopMatcher:
    """One answer's text, released as soon as no stop string can begin in it."""

    def __init__(self, vocabulary: TokenBytes, stops: Sequence[str] = ()) -> None:
        raise NotImplementedError

    def push(self, token_id: int) -> Released:
        raise NotImplementedError

    def finish(self) -> Released:
        """The answer ended by itself: everything held back is released."""
        raise NotImplementedError
