"""A script that Redis runs as one step, called by its digest once the server knows it."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import Final

# Lua to begin a script with: the time by Redis's own clock, which all gateways share.
NOW_MS: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
"""


@dataclass(frozen=True)
class Script:
    # Lua; every key that it touches is in KEYS and has the same hash tag.
    source: str
    # Whether running it twice with the same arguments leaves what running it once leaves, so that it may be sent again
    # when the connection broke before its answer came.
    repeatable: bool = True

    @cached_property
    def digest(self) -> str:
        """By which Redis names it; nothing is protected by it."""
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()
