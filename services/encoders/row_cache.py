"""Rows of media that were encoded before, for whoever of the same salt sends the same bytes again: bounded in bytes,
and what was not asked for longest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from torch import Tensor

from antiphon.model.vision_encoder import VisionRows
from services.encoders.layouts import SoundContext
from services.encoders.media import Extent, MediaItem

# What an entry takes beside its rows, generously.
_ENTRY_BYTES: Final = 2048


@dataclass(frozen=True, slots=True)
class KnownMedium:
    """All that answers a request for a medium without reading it; sounds as far as they were met."""

    extent: Extent
    frames: tuple[VisionRows, ...] = ()
    sounds: Mapping[SoundContext, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def byte_count(self) -> int:
        tensors = [tensor for rows in self.frames for tensor in (rows.rows, *rows.deepstack)]
        tensors += [tensor for sound in self.sounds.values() for tensor in sound]
        return _ENTRY_BYTES * (1 + len(self.sounds)) + sum(tensor.nbytes for tensor in tensors)


class RowCache:
    """For any thread. Keeps nothing with 0 bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._media: OrderedDict[bytes, KnownMedium] = OrderedDict()
        self._lock = threading.Lock()
        self._byte_count = 0

    @property
    def byte_count(self) -> int:
        return self._byte_count

    def __len__(self) -> int:
        return len(self._media)

    def key(self, salt: bytes, item: MediaItem) -> bytes | None:
        """None when nothing may be shared. Reads the whole file."""
        return medium_key(salt, item) if salt and self._max_bytes else None

    def find(self, key: bytes | None) -> KnownMedium | None:
        if key is None:
            return None
        with self._lock:
            known = self._media.get(key)
            if known is not None:
                self._media.move_to_end(key)
            return known

    def keep(self, key: bytes, medium: KnownMedium) -> None:
        """Beside what is known of its sound already; rows must not be written to afterwards."""
        medium = replace(
            medium,
            frames=tuple(VisionRows(_own(rows.rows), _all_own(rows.deepstack)) for rows in medium.frames),
            sounds={context: _all_own(rows) for context, rows in medium.sounds.items()},
        )
        with self._lock:
            before = self._media.pop(key, None)
            if before is not None:
                self._byte_count -= before.byte_count
                medium = replace(medium, sounds={**before.sounds, **medium.sounds})
            if medium.byte_count <= self._max_bytes:
                self._media[key] = medium
                self._byte_count += medium.byte_count
            while self._byte_count > self._max_bytes:
                self._byte_count -= self._media.popitem(last=False)[1].byte_count


def medium_key(salt: bytes, item: MediaItem) -> bytes:
    """Of everything that a medium's rows depend on, but for the sounds beside it."""
    shape = (
        f"{item.modality} {item.video_fps!r} {item.use_audio_in_video}" if item.modality == "video" else item.modality
    )
    digest = sha256()
    for part in (salt, shape.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(item.data)
    return digest.digest()


def _all_own(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(_own(tensor) for tensor in tensors)


def _own(tensor: Tensor) -> Tensor:
    """Memory of its own: a part of a batch would keep all of it."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
