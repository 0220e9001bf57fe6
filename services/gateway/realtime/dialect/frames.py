"""Frames for a client: numbered, so that one who lost his gateway can say which was his last; and as they are kept.

What is kept of sound is its bytes beside the frame, not their base64 within it.
"""

import json
import re
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from antiphon.errors import InternalError, InvalidInput
from antiphon.sessions.event_log import LoggedEvent
from services.gateway.realtime.dialect.items import Json
from services.gateway.realtime.sound_formats import base64_of

_EVENT_ID: Final = re.compile(r"event_(?P<session>[0-9a-f]{24})_(?P<number>\d{1,12})", re.ASCII)
# Of a frame with sound: its delta, still empty, closes the JSON.
_EMPTY_END: Final = '""}'


@dataclass(frozen=True)
class Frame:
    # Of the session's events; 1 is the first.
    number: int
    # JSON in ASCII, but for its sound.
    bare: str
    # In the encoding of its response.
    sound: bytes = field(default=b"", repr=False)
    # At 24 kHz, that it stands for.
    sample_count: int = 0
    # When it was made, since the epoch.
    at_seconds: float = field(default_factory=time.time)

    @cached_property
    def text(self) -> str:
        """As it is sent."""
        return f'{self.bare[: -len(_EMPTY_END)]}"{base64_of(self.sound)}"}}' if self.sound else self.bare

    @property
    def size_bytes(self) -> int:
        """Of its text."""
        return len(self.bare) + (len(self.sound) + 2) // 3 * 4

    def logged(self) -> LoggedEvent:
        head = f"{round(self.at_seconds * 1e3)} {self.sample_count} "
        return LoggedEvent(self.number, (head + self.bare).encode("ascii"), self.sound)

    @classmethod
    def of(cls, event: LoggedEvent) -> "Frame":
        """Of one whose sound is still kept. Raises InternalError."""
        try:
            at_ms, sample_count, bare = event.data.decode("ascii").split(" ", 2)
            return cls(event.id, bare, event.sound or b"", int(sample_count), int(at_ms) / 1e3)
        except ValueError as error:
            raise InternalError(f"A kept event cannot be read ({type(error).__name__}).") from None


class Numbering:
    """Of one session's events, wherever it goes on."""

    def __init__(self, session_id: str, last: int = 0) -> None:
        self._session, self.last = session_id.removeprefix("sess_"), last

    def frame(self, event: Json, sound: bytes = b"", sample_count: int = 0) -> Frame:
        """event: its type first; with sound, an empty `delta` last."""
        self.last += 1
        numbered = {"type": event["type"], "event_id": f"event_{self._session}_{self.last}", **event}
        return Frame(self.last, json.dumps(numbered, separators=(",", ":")), sound, sample_count)

    def apart(self, event: Json) -> Frame:
        """Not one of the session's: a client does not come back to it."""
        named = {"type": event["type"], "event_id": f"event_{secrets.token_hex(16)}", **event}
        return Frame(0, json.dumps(named, separators=(",", ":")))


def event_number(event_id: str, session_id: str) -> int:
    """Of an event that a client names as his last. Raises InvalidInput for one of another session, or none."""
    found = _EVENT_ID.fullmatch(event_id)
    if found is None or found["session"] != session_id.removeprefix("sess_"):
        raise InvalidInput(
            "Invalid value for 'last_event_id': expected the 'event_id' of an event of this session; got "
            f"'{event_id[:64]}'. Connect with 'session_id' alone to be told the session and its items.",
            param="last_event_id",
        )
    return int(found["number"])
