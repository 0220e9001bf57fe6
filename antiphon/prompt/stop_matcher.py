"""Stop strings over a stream of tokens: what text, and which tokens, are surely before a stop."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antiphon.prompt.detokenizer import IncrementalDetokenizer, TokenBytes


@dataclass(frozen=True, slots=True)
class Released:
    """What became certain with the last token."""

    text: str
    # Tokens whose whole text stands before any stop, oldest first: these may be spoken.
    token_ids: tuple[int, ...]
    # Characters of the answer up to the end of each of them; one more where it ends inside a character.
    token_ends: tuple[int, ...]
    # A stop string is complete: the answer ends here and nothing further is pushed. Neither the stop nor a token that
    # touches it is ever released.
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class _HeldToken:
    token_id: int
    # Characters of the answer up to the end of this token.
    end: int


class StopMatcher:
    """One answer's text, released as soon as no stop string can begin in it. The stop that is complete first wins,
    wherever the tokens' boundaries lie."""

    def __init__(self, vocabulary: TokenBytes, stops: Sequence[str] = ()) -> None:
        self._detokenizer = IncrementalDetokenizer(vocabulary)
        self._stops = [stop for stop in stops if stop]
        self._held_text = ""
        self._released_characters = 0
        self._held_tokens: deque[_HeldToken] = deque()

    def push(self, token_id: int) -> Released:
        self._held_text += self._detokenizer.push(token_id)
        # A character that is not whole yet may turn out to be part of a stop.
        end = self._released_characters + len(self._held_text) + self._detokenizer.is_inside_character
        if not self._stops:
            return Released(self._take_text(len(self._held_text)), (token_id,), (end,))
        self._held_tokens.append(_HeldToken(token_id, end))
        stop_start = self._complete_stop()
        if stop_start is not None:
            return self._release(stop_start, stopped=True)
        return self._release(len(self._held_text) - self._possible_stop_length())

    def finish(self) -> Released:
        """The answer ended by itself: everything held back is released."""
        self._held_text += self._detokenizer.finish()
        stop_start = self._complete_stop()
        if stop_start is not None:
            return self._release(stop_start, stopped=True)
        return _released(self._take_text(len(self._held_text)), self._held_tokens)

    def _release(self, length: int, *, stopped: bool = False) -> Released:
        """So many characters of the held text, and the tokens that end in them."""
        text = self._take_text(length)
        return _released(text, self._take_tokens(), stopped=stopped)

    def _complete_stop(self) -> int | None:
        """Where the stop that is complete first begins in the held text; the longest of several that end together."""
        found = [(start + len(stop), start) for stop in self._stops if (start := self._held_text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _possible_stop_length(self) -> int:
        """Characters at the end of the held text that may be the beginning of a stop."""
        longest = min(len(self._held_text), max(map(len, self._stops)) - 1)
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held_text[-n:]) for stop in self._stops)), 0)

    def _take_text(self, length: int) -> str:
        taken, self._held_text = self._held_text[:length], self._held_text[length:]
        self._released_characters += length
        return taken

    def _take_tokens(self) -> list[_HeldToken]:
        taken: list[_HeldToken] = []
        while self._held_tokens and self._held_tokens[0].end <= self._released_characters:
            taken.append(self._held_tokens.popleft())
        return taken


def _released(text: str, tokens: Iterable[_HeldToken], *, stopped: bool = False) -> Released:
    held = tuple(tokens)
    return Released(text, tuple(each.token_id for each in held), tuple(each.end for each in held), stopped)
