"""Everything that a run writes, reads, hears or says, as text: what its tokenizer is learnt from."""

from collections.abc import Iterable, Iterator

from recipes.nano.domain.conversations import Conversation, Recording, Text, Turn

from .training import WHOLE_WORDS


def texts_of(conversations: Iterable[Conversation], said: Iterable[str]) -> Iterator[str]:
    """said: what the Talker learns to say. Around every conversation stand the words of its template."""
    for conversation in conversations:
        yield from WHOLE_WORDS
        yield conversation.system or ""
        yield f"\n{conversation.thought}\n" if conversation.thought else ""
        for turn in conversation.turns:
            yield from _texts_of_turn(turn)
    yield from said


def _texts_of_turn(turn: Turn) -> Iterator[str]:
    yield turn.answer
    for part in turn.parts:
        match part:
            case Text(text):
                yield text
            case Recording(_, words, _):
                yield f" {words}"  # as the recogniser that trains beside the Thinker writes it
