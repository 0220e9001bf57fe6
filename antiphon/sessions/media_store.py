"""Sounds and images of conversations, by the hash of their content: the seam, its bounds, the form in this process."""

import asyncio
from collections.abc import Callable, Collection
from hashlib import sha256
from time import time
from typing import Final, Protocol

from antiphon.errors import NotFound, TooLarge
from antiphon.sessions.expiring import ExpiringMap
from antiphon.sessions.settings import SessionSettings

# A longer one is hashed in a thread: 64 KiB take some fifty microseconds.
_INLINE_BYTES: Final = 1 << 16


class MediaStore(Protocol):
    """Of each tenant its own: content never crosses tenants, nor does the knowledge that another has it. Every use
    begins a medium's lifetime anew. All raise Unavailable when the storage is away."""

    async def put(self, tenant: str, data: bytes) -> str:
        """Returns the SHA-256 of the content, in hex. Raises TooLarge."""
        ...

    async def get(self, tenant: str, content_hash: str) -> bytes:
        """Raises NotFound."""
        ...

    async def touch(self, tenant: str, content_hashes: Collection[str]) -> frozenset[str]:
        """Begins their lifetime anew. Returns those that are not there any more."""
        ...


class MemoryMediaStore:
    def __init__(self, settings: SessionSettings, now_seconds: Callable[[], float] = time) -> None:
        self._settings = settings
        self._kept = ExpiringMap[bytes](settings.media_seconds, size_of=len, now_seconds=now_seconds)

    async def put(self, tenant: str, data: bytes) -> str:
        content_hash = await hash_within_bound(data, self._settings)
        if self._kept.get(tenant, content_hash) is None:
            if self._kept.size(tenant) + len(data) > self._settings.media_bytes:
                raise media_full(self._settings)
            self._kept.put(tenant, content_hash, data)
        return content_hash

    async def get(self, tenant: str, content_hash: str) -> bytes:
        data = self._kept.get(tenant, content_hash)
        if data is None:
            raise unknown_medium()
        return data

    async def touch(self, tenant: str, content_hashes: Collection[str]) -> frozenset[str]:
        return frozenset(each for each in content_hashes if self._kept.get(tenant, each) is None)


async def hash_within_bound(data: bytes, settings: SessionSettings) -> str:
    """A long one holds nobody else up. Raises TooLarge."""
    if len(data) > settings.medium_bytes:
        raise TooLarge(f"A medium has at most {settings.medium_bytes} bytes; came {len(data)}. Send a shorter one.")
    digest = sha256(data) if len(data) <= _INLINE_BYTES else await asyncio.to_thread(sha256, data)
    return digest.hexdigest()


def unknown_medium() -> NotFound:
    return NotFound("The medium is unknown or has expired. Send it again.")


def media_full(settings: SessionSettings) -> TooLarge:
    return TooLarge(
        f"Media of conversations may have {settings.media_bytes} bytes together; this one does not fit any more. "
        f"They are forgotten {settings.media_seconds:g} seconds after their last use."
    )
