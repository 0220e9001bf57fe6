"""Entries of one text each in a Redis stream."""

from typing import Final, cast

from antiphon.storage.connection import Storage

ENTRY: Final = "entry"


async def read_entries(storage: Storage, key: str, start: str, end: str, count: int) -> list[tuple[str, bytes]]:
    """Ids and texts, oldest first. start and end are ids as XRANGE takes them: "(" before one leaves itself out."""
    reply = await storage.execute("XRANGE", key, start, end, "COUNT", count)
    entries = cast(list[tuple[bytes, tuple[bytes, bytes]]], reply)
    return [(name.decode(), text) for name, (_, text) in entries]
