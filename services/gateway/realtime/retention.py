"""Which items of a conversation the next prompt holds: where not all of them fit, the oldest are left out of it.

They stay in the conversation, as its client knows it. What each takes of the context is counted before the prompt is
built, never too low but for pictures, whose size only the encoders know.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.items import (
    CallItem,
    CallOutputItem,
    InputImage,
    InputSound,
    Item,
    OutputSpeech,
    SystemItem,
    UserItem,
)
from services.gateway.realtime.core.response import AnswerOptions

# The encoders make 13 rows of a second of sound; two markers stand around them.
_TOKENS_PER_SECOND: Final = 13
_MARKER_TOKENS: Final = 2
_PICTURE_TOKENS: Final = 1024
# What the template writes around a message, around a call or its output, and once about tools.
_MESSAGE_TOKENS: Final = 8
_CALL_TOKENS: Final = 32
_TOOLS_TOKENS: Final = 256
# Longer texts are counted by how they begin.
_COUNTED_CHARACTERS: Final = 1 << 16
# An answer that is not bounded takes no more of the context than this from what was said before.
_MOST_FOR_ANSWER: Final = 0.25


@dataclass(frozen=True, slots=True)
class PromptBounds:
    """context_tokens: of prompt and answer. answer_tokens: kept free where an answer has no bound of its own;
    speech_rows and talker_rows are the same of the Talker, whose prompt is part of the other."""

    context_tokens: int
    answer_tokens: int
    talker_rows: int
    speech_rows: int

    def prompt_tokens(self, options: AnswerOptions) -> int:
        free = options.max_answer_tokens or min(self.answer_tokens, int(self.context_tokens * _MOST_FOR_ANSWER))
        room = self.context_tokens - free
        if not options.speaks:
            return room
        return min(room, self.talker_rows - min(self.speech_rows, int(self.talker_rows * _MOST_FOR_ANSWER)))


@dataclass(slots=True)
class Retention:
    """Of one session. text_tokens: how many a text becomes."""

    settings: RealtimeSettings
    bounds: PromptBounds
    text_tokens: Callable[[str], int]
    # By id, with the item that was counted.
    _counted: dict[str, tuple[Item, int]] = field(default_factory=dict, init=False)
    # Of those that were left out for a while to come, so that prompts begin alike in the meantime.
    _left_out: set[str] = field(default_factory=set, init=False)

    def kept(self, options: AnswerOptions, items: Sequence[Item]) -> list[Item]:
        truncation = options.truncation
        if truncation.retention_ratio is None:
            return list(items)
        self._forget(items)
        present = [item for item in items if item.id not in self._left_out or item is items[-1]]
        room = self.bounds.prompt_tokens(options) - self._fixed_tokens(options)
        room = min(room, truncation.post_instruction_tokens or room)
        kept = self._newest(present, room)
        if len(kept) < len(present) and truncation.retention_ratio < 1:
            kept = self._newest(present, int(room * truncation.retention_ratio))
            self._left_out = {item.id for item in items} - {item.id for item in kept}
        return kept

    def _newest(self, items: Sequence[Item], room_tokens: int) -> list[Item]:
        """Those that fit into one prompt, the last in any case. What a system item says is always kept."""
        kept: list[Item] = []
        tokens = sum(self._tokens(item) for item in items if isinstance(item, SystemItem))
        seconds, media, is_full = 0.0, 0, False
        for item in reversed(items):
            is_system = isinstance(item, SystemItem)
            tokens += 0 if is_system else self._tokens(item)
            parts = item.parts if isinstance(item, UserItem) else ()
            seconds += sum(part.seconds for part in parts if isinstance(part, InputSound))
            media += sum(isinstance(part, InputSound | InputImage) for part in parts)
            is_full |= bool(kept) and (
                tokens > room_tokens
                or seconds > self.settings.prompt_sound_seconds
                or media > self.settings.prompt_media
            )
            if not is_full or is_system:
                kept.append(item)
        return _without_orphans(kept[::-1])

    def _fixed_tokens(self, options: AnswerOptions) -> int:
        tools = [json.dumps([tool.name, tool.description, dict(tool.parameters)]) for tool in options.tools]
        told = sum(self._text(tool) + _CALL_TOKENS for tool in tools) + (_TOOLS_TOKENS if tools else 0)
        return self._text(options.instructions) + 2 * _MESSAGE_TOKENS + told

    def _tokens(self, item: Item) -> int:
        item_counted, count = self._counted.get(item.id, (None, 0))
        if item_counted is not item:
            count = self._count(item)
            self._counted[item.id] = item, count
        return count

    def _count(self, item: Item) -> int:
        match item:
            case CallItem():
                return self._text(item.name) + self._text(item.arguments) + _CALL_TOKENS
            case CallOutputItem():
                return self._text(item.output) + _CALL_TOKENS
            case _:
                return _MESSAGE_TOKENS + sum(map(self._part, item.parts))

    def _part(self, part: object) -> int:
        match part:
            case InputSound():
                return ceil(part.seconds * _TOKENS_PER_SECOND) + 1 + _MARKER_TOKENS
            case InputImage():
                return _PICTURE_TOKENS + _MARKER_TOKENS
            case OutputSpeech():
                return self._text(part.transcript)
            case _:
                return self._text(str(getattr(part, "text", "")))

    def _text(self, text: str) -> int:
        if len(text) <= _COUNTED_CHARACTERS:
            return self.text_tokens(text)
        return ceil(self.text_tokens(text[:_COUNTED_CHARACTERS]) * len(text) / _COUNTED_CHARACTERS)

    def _forget(self, items: Iterable[Item]) -> None:
        """What is there no more."""
        ids = {item.id for item in items}
        self._counted = {item_id: known for item_id, known in self._counted.items() if item_id in ids}


def _without_orphans(items: list[Item]) -> list[Item]:
    """What a call gave is not told without the call."""
    calls = {item.call_id for item in items if isinstance(item, CallItem)}
    last = items[-1] if items else None
    return [item for item in items if not isinstance(item, CallOutputItem) or item.call_id in calls or item is last]
