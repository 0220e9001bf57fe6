"""What a conversation of a live session is made of, and its order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.alignment import Alignment

Status = Literal["in_progress", "completed", "incomplete"]
Encoding = Literal["pcm", "pcmu", "pcma"]
SAMPLE_RATES_HZ: Final[dict[Encoding, int]] = {"pcm": 24_000, "pcmu": 8_000, "pcma": 8_000}

# Where a new item goes: after this one; these two are no ids.
ROOT: Final = "root"


@dataclass(frozen=True, slots=True)
class InputText:
    text: str


@dataclass(frozen=True, slots=True)
class InputSound:
    # Signed 16-bit little-endian, one channel, at the rate of its encoding.
    pcm16: bytes
    # As the client sent it.
    encoding: Encoding
    transcript: str | None = None

    @property
    def seconds(self) -> float:
        return len(self.pcm16) / 2 / SAMPLE_RATES_HZ[self.encoding]


@dataclass(frozen=True, slots=True)
class InputImage:
    data: bytes
    # Such as "image/png".
    media_type: str


@dataclass(frozen=True, slots=True)
class OutputText:
    text: str


@dataclass(frozen=True, slots=True)
class OutputSpeech:
    transcript: str
    # 24 kHz; of what was handed to the client, so much as was heard.
    sample_count: int = 0
    # None where the client wrote the item: nobody heard it.
    alignment: Alignment | None = None
    # What was handed to the client, where the server has cut it itself.
    sent_count: int | None = None

    @property
    def heard_ms(self) -> int:
        return self.sample_count * 1000 // SAMPLE_RATES_HZ["pcm"]

    def heard(self, sample_count: int) -> "OutputSpeech":
        """The same up to there at most, with the words that had been said by then."""
        count = max(0, min(sample_count, self.sample_count))
        transcript = self.alignment.heard(self.transcript, count) if self.alignment else self.transcript
        return replace(self, transcript=transcript, sample_count=count)


InputPart = InputText | InputSound | InputImage
OutputPart = OutputText | OutputSpeech


@dataclass(frozen=True, slots=True)
class UserItem:
    id: str
    parts: tuple[InputPart, ...]
    status: Status = "completed"


@dataclass(frozen=True, slots=True)
class SystemItem:
    id: str
    parts: tuple[InputText, ...]
    status: Status = "completed"


@dataclass(frozen=True, slots=True)
class AssistantItem:
    id: str
    parts: tuple[OutputPart, ...]
    status: Status = "completed"


@dataclass(frozen=True, slots=True)
class CallItem:
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status = "completed"


@dataclass(frozen=True, slots=True)
class CallOutputItem:
    id: str
    call_id: str
    output: str
    status: Status = "completed"


Item = UserItem | SystemItem | AssistantItem | CallItem | CallOutputItem


class ItemList:
    """Bounded in number and in the bytes of the media and texts that it holds."""

    def __init__(self, most_items: int, most_bytes: int) -> None:
        self._most_items, self._most_bytes = most_items, most_bytes
        self._items: list[Item] = []
        self._held_bytes = 0

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last_id(self) -> str | None:
        return self._items[-1].id if self._items else None

    def find(self, item_id: str) -> Item | None:
        index = self._index(item_id)
        return None if index is None else self._items[index]

    def insert(self, item: Item, after: str | None = None) -> str | None:
        """Behind the item `after`, ROOT being the head and None the tail; returns the id of the one before it."""
        self._check_new(item.id)
        self.require_room(byte_count(item))
        return self._insert(item, self._position(after))

    def append(self, item: Item) -> str | None:
        """Of an answer, for which there was room when it began."""
        return self._insert(item, len(self._items))

    def has_room(self, new_bytes: int) -> bool:
        return len(self._items) < self._most_items and self._held_bytes + new_bytes <= self._most_bytes

    def require_room(self, new_bytes: int = 0) -> None:
        if not self.has_room(new_bytes):
            raise InvalidInput(
                f"The conversation is full: at most {self._most_items} items of {self._most_bytes} bytes together. "
                "Delete items that are not needed any more.",
                code="conversation_full",
            )

    def previous_id(self, item_id: str) -> str | None:
        index = self._index(item_id)
        return self._items[index - 1].id if index else None

    def replace(self, item: Item) -> None:
        """Does nothing when the item has been deleted meanwhile."""
        index = self._index(item.id)
        if index is not None:
            self._held_bytes += byte_count(item) - byte_count(self._items[index])
            self._items[index] = item

    def delete(self, item_id: str) -> bool:
        index = self._index(item_id)
        if index is None:
            return False
        self._held_bytes -= byte_count(self._items.pop(index))
        return True

    def _insert(self, item: Item, position: int) -> str | None:
        self._items.insert(position, item)
        self._held_bytes += byte_count(item)
        return self._items[position - 1].id if position else None

    def _index(self, item_id: str) -> int | None:
        """From the end, where what is looked for nearly always is."""
        found = (index for index in range(len(self._items) - 1, -1, -1) if self._items[index].id == item_id)
        return next(found, None)

    def _position(self, after: str | None) -> int:
        if after is None:
            return len(self._items)
        if after == ROOT:
            return 0
        index = self._index(after)
        if index is None:
            raise InvalidInput(
                f"The item '{after[:64]}' does not exist, so nothing can be put behind it.",
                param="previous_item_id",
                code="item_create_invalid_previous_item_id",
            )
        return index + 1

    def _check_new(self, item_id: str) -> None:
        if self._index(item_id) is not None:
            raise InvalidInput(
                f"An item with the id '{item_id[:64]}' exists already.",
                param="item.id",
                code="item_create_duplicate_item_id",
            )


def byte_count(item: Item) -> int:
    match item:
        case CallItem():
            return len(item.arguments)
        case CallOutputItem():
            return len(item.output)
        case _:
            return sum(_part_bytes(part) for part in item.parts)


def _part_bytes(part: InputPart | OutputPart) -> int:
    match part:
        case InputSound():
            return len(part.pcm16)
        case InputImage():
            return len(part.data)
        case OutputSpeech():
            return len(part.transcript)
        case _:
            return len(part.text)
