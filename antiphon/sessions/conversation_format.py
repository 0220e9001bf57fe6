"""A conversation as bytes and back: a head, JSON of what is text, then the integers of the turn under way."""

import json
import struct
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any, Final

from antiphon.errors import InternalError, Unavailable
from antiphon.sessions.conversation import (
    AudioPart,
    Conversation,
    FunctionCall,
    FunctionCallOutput,
    ImagePart,
    Item,
    Message,
    Part,
    TextPart,
    TurnUnderWay,
)
from antiphon.sessions.progress import Progress, pack_frames, pack_ids, unpack_frames, unpack_ids

FORMAT: Final = 1
# Mark, format, and how many bytes the JSON, the prompt's ids, the generated ids and the frames have.
_HEAD: Final = struct.Struct("<4sHIIII")
_MARK: Final = b"ANTC"
_PART_KINDS: Final[dict[str, type[Part]]] = {"text": TextPart, "audio": AudioPart, "image": ImagePart}
_CALL_KINDS: Final[dict[str, type[Item]]] = {"call": FunctionCall, "output": FunctionCallOutput}
_KIND_OF: Final = {kind: name for name, kind in (*_PART_KINDS.items(), *_CALL_KINDS.items())}
_NAMES: Final = {kind: tuple(field.name for field in fields(kind)) for kind in _KIND_OF}


def pack_conversation(conversation: Conversation) -> bytes:
    turn = conversation.turn or TurnUnderWay("")
    told = {
        "id": conversation.id,
        "created_at_seconds": conversation.created_at_seconds,
        "updated_at_seconds": conversation.updated_at_seconds,
        "configuration": conversation.configuration,
        "items": [_told_item(item) for item in conversation.items],
        "turn": None if conversation.turn is None else turn.turn_id,
    }
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    progress = turn.progress
    tail = (pack_ids(turn.prompt_ids), pack_ids(progress.token_ids), pack_frames(progress.frames))
    return b"".join((_HEAD.pack(_MARK, FORMAT, len(text), *map(len, tail)), text, *tail))


def unpack_conversation(data: bytes) -> Conversation:
    """Raises Unavailable for one that another release wrote, InternalError for what is none."""
    lengths = _read_head(data)
    ends = [_HEAD.size]
    for length in lengths:
        ends.append(ends[-1] + length)
    if ends[-1] != len(data):
        raise InternalError(f"A kept conversation: expected {ends[-1]} bytes; came {len(data)}.")
    text, prompt_ids, token_ids, frames = (data[start:end] for start, end in pairwise(ends))
    try:
        told = json.loads(text.decode("utf-8", "surrogatepass"))
        return Conversation(
            id=told["id"],
            created_at_seconds=told["created_at_seconds"],
            updated_at_seconds=told["updated_at_seconds"],
            items=tuple(_item(item) for item in told["items"]),
            configuration=told["configuration"],
            turn=_turn(told["turn"], prompt_ids, Progress(unpack_ids(token_ids), unpack_frames(frames))),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(f"A kept conversation cannot be read ({type(error).__name__}).") from None


def _read_head(data: bytes) -> tuple[int, ...]:
    if len(data) < _HEAD.size:
        raise InternalError(f"A kept conversation: expected at least {_HEAD.size} bytes; came {len(data)}.")
    mark, version, *lengths = _HEAD.unpack_from(data)
    if mark != _MARK:
        raise InternalError("A kept conversation: expected its mark at the start; came something else.")
    if version != FORMAT:
        raise Unavailable(
            f"The conversation was kept by another release: this one reads format {FORMAT}; came {version}. "
            "Try again when all gateways run the same release."
        )
    return tuple(lengths)


def _turn(turn_id: str | None, prompt_ids: bytes, progress: Progress) -> TurnUnderWay | None:
    if turn_id is None:
        return None
    return TurnUnderWay(turn_id, tuple(unpack_ids(prompt_ids).tolist()), progress)


def _told_item(item: Item) -> dict[str, Any]:
    if not isinstance(item, Message):
        return _told(item)
    parts = [_told(part) for part in item.parts]
    return {"kind": "message", "id": item.id, "role": item.role, "status": item.status, "parts": parts}


def _told(thing: Part | Item) -> dict[str, Any]:
    """As `asdict`, which copies what needs no copy."""
    return {"kind": _KIND_OF[type(thing)], **{name: getattr(thing, name) for name in _NAMES[type(thing)]}}


def _item(told: Mapping[str, Any]) -> Item:
    rest = {name: value for name, value in told.items() if name != "kind"}
    if told["kind"] != "message":
        return _CALL_KINDS[told["kind"]](**rest)
    return Message(told["id"], told["role"], tuple(_part(part) for part in told["parts"]), told["status"])


def _part(told: Mapping[str, Any]) -> Part:
    rest = {name: value for name, value in told.items() if name != "kind"}
    return _PART_KINDS[told["kind"]](**rest)
