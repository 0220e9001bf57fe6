"""A conversation in which everything occurs that a conversation may hold."""

import numpy as np

from antiphon.sessions.conversation import (
    AudioPart,
    Conversation,
    FunctionCall,
    FunctionCallOutput,
    ImagePart,
    Message,
    TextPart,
    TurnUnderWay,
)
from antiphon.sessions.progress import Progress


def frames(count: int, first: int = 0) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]]":
    """Frames that tell each other apart: (count, 16)."""
    return np.arange(first * 16, (first + count) * 16, dtype=np.int16).reshape(count, 16) % 2048


def conversation(conversation_id: str = "conv_1", item_count: int = 0) -> Conversation:
    rich = (
        Message("item_1", "system", (TextPart("Antworte kurz. \N{SNOWMAN} \ud800"),)),
        Message("item_2", "user", (AudioPart("ab" * 32, None), ImagePart("cd" * 32), TextPart(""))),
        FunctionCall("item_3", "call_1", "weather", '{"city": "Köln"}'),
        FunctionCallOutput("item_4", "call_1", '{"celsius": 21}', "incomplete"),
        Message("item_5", "assistant", (AudioPart(None, "It is warm.", heard_ms=640),), "incomplete"),
    )
    more = tuple(Message(f"item_{n}", "user", (TextPart(f"question {n}"),)) for n in range(6, item_count + 1))
    return Conversation(
        id=conversation_id,
        created_at_seconds=1_700_000_000.25,
        updated_at_seconds=1_700_000_001.5,
        items=rich + more,
        configuration='{"voice":"ethan"}',
        turn=TurnUnderWay("turn_1", (151_644, 0, 7), Progress(np.array([5, -1], np.int32), frames(3))),
    )
