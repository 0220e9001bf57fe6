"""Rows of media and of windows of sound that were encoded before, for whoever of the same salt sends the same again:
bounded in bytes, and what was not asked for longest goes first.

A medium is found by the bytes of its file. A window is found by its final log-mel frames, so that a sound that begins
like an earlier one is encoded only from where it goes on.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from torch import Tensor

from antiphon.model.audio_encoder import AudioWindow
from antiphon.model.vision_encoder import VisionRows
from services.encoders.layouts import SoundContext
from services.encoders.media import Extent, MediaItem

# What an entry takes beside its rows, generously.
_ENTRY_BYTES: Final = 2048


@dataclass(frozen=True, slots=True)
class KnownMedium:
    """All that answers a request for a medium without reading it; sounds, window by window, as far as they were met."""

    extent: Extent
    frames: tuple[VisionRows, ...] = ()
    sounds: Mapping[SoundContext, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        tensors = [tensor for rows in self.frames for tensor in (rows.rows, *rows.deepstack)]
        return tensors + [tensor for sound in self.sounds.values() for tensor in sound]

    @property
    def entry_bytes(self) -> int:
        return _ENTRY_BYTES * (1 + len(self.sounds))

    @property
    def byte_count(self) -> int:
        """Alone."""
        return self.entry_bytes + sum({id(tensor): tensor.nbytes for tensor in self.tensors}.values())


@dataclass(frozen=True, slots=True)
class _KnownWindow:
    rows: Tensor
    entry_bytes: int = _ENTRY_BYTES

    @property
    def tensors(self) -> list[Tensor]:
        return [self.rows]


class RowCache:
    """For any thread. Keeps nothing with 0 bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: OrderedDict[bytes, KnownMedium | _KnownWindow] = OrderedDict()
        self._lock = threading.Lock()
        self._byte_count = 0
        # How many times a tensor, by its id, is held: a sound and its windows share theirs.
        self._holds: Counter[int] = Counter()

    @property
    def byte_count(self) -> int:
        return self._byte_count

    def __len__(self) -> int:
        return len(self._known)

    def key(self, salt: bytes, item: MediaItem) -> bytes | None:
        """None when nothing may be shared. Reads the whole file."""
        return medium_key(salt, item) if salt and self._max_bytes else None

    def window_key(self, salt: bytes, window: AudioWindow) -> bytes | None:
        """None when nothing may be shared. Reads all its frames."""
        return window_key(salt, window) if salt and self._max_bytes else None

    def find(self, key: bytes | None) -> KnownMedium | None:
        known = self._found(key)
        return known if isinstance(known, KnownMedium) else None

    def find_window(self, key: bytes | None) -> Tensor | None:
        known = self._found(key)
        return known.rows if isinstance(known, _KnownWindow) else None

    def keep(self, key: bytes, medium: KnownMedium) -> None:
        """Beside what is known of its sound already; rows must not be written to afterwards."""
        medium = replace(
            medium,
            frames=tuple(VisionRows(_own(rows.rows), _all_own(rows.deepstack)) for rows in medium.frames),
            sounds={context: _all_own(rows) for context, rows in medium.sounds.items()},
        )
        with self._lock:
            before = self._dropped(key)
            if isinstance(before, KnownMedium):
                medium = replace(medium, sounds={**before.sounds, **medium.sounds})
            if medium.byte_count <= self._max_bytes:
                self._add(key, medium)

    def keep_window(self, key: bytes, rows: Tensor) -> None:
        """The rows must not be written to afterwards."""
        window = _KnownWindow(_own(rows))
        with self._lock:
            self._dropped(key)
            if window.entry_bytes + rows.nbytes <= self._max_bytes:
                self._add(key, window)

    def _found(self, key: bytes | None) -> KnownMedium | _KnownWindow | None:
        if key is None:
            return None
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
            return known

    def _add(self, key: bytes, known: KnownMedium | _KnownWindow) -> None:
        """Under the lock."""
        self._known[key] = known
        self._byte_count += known.entry_bytes
        for tensor in known.tensors:
            self._byte_count += 0 if self._holds[id(tensor)] else tensor.nbytes
            self._holds[id(tensor)] += 1
        while self._byte_count > self._max_bytes:
            self._dropped(next(iter(self._known)))

    def _dropped(self, key: bytes) -> KnownMedium | _KnownWindow | None:
        """Under the lock."""
        known = self._known.pop(key, None)
        if known is None:
            return None
        self._byte_count -= known.entry_bytes
        for tensor in known.tensors:
            self._holds[id(tensor)] -= 1
            if not self._holds[id(tensor)]:
                del self._holds[id(tensor)]
                self._byte_count -= tensor.nbytes
        return known


def medium_key(salt: bytes, item: MediaItem) -> bytes:
    """Of everything that a medium's rows depend on, but for the sounds beside it."""
    shape = (
        f"{item.modality} {item.video_fps!r} {item.use_audio_in_video}" if item.modality == "video" else item.modality
    )
    return _digest(salt, shape, item.data)


def window_key(salt: bytes, window: AudioWindow) -> bytes:
    """Of everything that a window's rows depend on. The loudest moment of the whole sound, and what the sound is padded
    to, are in its frames by now."""
    bins, frames = window.mel.shape
    return _digest(salt, f"window {bins} {frames} {window.padded_second}", window.mel.contiguous().numpy().data)


def _digest(salt: bytes, shape: str, content: bytes | memoryview) -> bytes:
    digest = sha256()
    for part in (salt, shape.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(content)
    return digest.digest()


def _all_own(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(_own(tensor) for tensor in tensors)


def _own(tensor: Tensor) -> Tensor:
    """Memory of its own: a part of a batch would keep all of it."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
