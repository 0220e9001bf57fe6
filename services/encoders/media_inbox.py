"""The media of one request as they arrive in chunks, held to the sizes that were announced and allowed."""

import io
import math
from fractions import Fraction
from typing import Final

from antiphon.errors import InvalidInput, TooLarge, UnreadableMedia
from antiphon.prompt.conversation import Modality
from antiphon.v1 import encoder_service_pb2
from antiphon.v1.encoder_service_pb2 import EncodeStart, MediaChunk
from antiphon.wire.media import MODALITY_NAMES
from services.encoders.config import EncodersSettings
from services.encoders.media import MediaItem

_LEAST_FPS: Final = 0.01


class MediaInbox:
    """Raises InvalidInput, TooLarge or UnreadableMedia for what is not as agreed, naming the item in `param`."""

    def __init__(self, start: EncodeStart, settings: EncodersSettings) -> None:
        _check_sizes(start, settings)
        self._announced = start.items
        self._fps = [_fps(index, item, settings) for index, item in enumerate(start.items)]
        self._modalities = [_modality(index, item) for index, item in enumerate(start.items)]
        # Buffers that give their bytes away without another copy.
        self._received = [io.BytesIO() for _ in start.items]

    @property
    def byte_count(self) -> int:
        """Announced, of all items."""
        return sum(item.byte_count for item in self._announced)

    def add(self, chunk: MediaChunk) -> None:
        if not 0 <= chunk.index < len(self._received):
            raise InvalidInput(
                f"chunk.index: expected one of the {len(self._received)} items; came {chunk.index}.",
                param="chunk.index",
            )
        received, announced = self._received[chunk.index], self._announced[chunk.index].byte_count
        if received.tell() + len(chunk.data) > announced:
            raise InvalidInput(f"Expected {announced} bytes, as announced; came more.", param=_param(chunk.index))
        received.write(chunk.data)

    def items(self) -> list[MediaItem]:
        """Once all chunks are there; hands the bytes over."""
        return [self._item(index) for index in range(len(self._received))]

    def _item(self, index: int) -> MediaItem:
        received, announced = self._received[index], self._announced[index]
        if received.tell() != announced.byte_count:
            raise InvalidInput(
                f"Expected {announced.byte_count} bytes, as announced; came {received.tell()}.", param=_param(index)
            )
        self._received[index] = io.BytesIO()
        return MediaItem(self._modalities[index], received.getvalue(), self._fps[index], announced.use_audio_in_video)


def _check_sizes(start: EncodeStart, settings: EncodersSettings) -> None:
    if not 1 <= len(start.items) <= settings.request_items:
        raise InvalidInput(
            f"Expected 1 to {settings.request_items} media in a request; came {len(start.items)}.", param="items"
        )
    for index, item in enumerate(start.items):
        if item.byte_count <= 0:
            raise UnreadableMedia("The medium is empty: expected the bytes of a file.", param=_param(index))
        if item.byte_count > settings.item_bytes:
            raise TooLarge(
                f"The medium is too large: at most {settings.item_bytes} bytes are accepted; it has {item.byte_count}.",
                param=_param(index),
            )
    total = sum(item.byte_count for item in start.items)
    if total > settings.request_bytes:
        raise TooLarge(
            f"The media are too large: at most {settings.request_bytes} bytes together are accepted; came {total}.",
            param="items",
        )


def _modality(index: int, item: encoder_service_pb2.MediaItem) -> Modality:
    modality = MODALITY_NAMES.get(item.modality)
    if modality is None:
        raise InvalidInput(f"modality: expected audio, image or video; came {item.modality}.", param=_param(index))
    return modality


def _fps(index: int, item: encoder_service_pb2.MediaItem, settings: EncodersSettings) -> float:
    fps = item.video_fps if item.HasField("video_fps") else settings.video_fps
    # Undoes the wire's float32.
    rounded = float(Fraction(fps).limit_denominator(1000)) if math.isfinite(fps) else fps
    if not _LEAST_FPS <= rounded <= settings.video_fps_most:  # false for what is no number
        raise InvalidInput(
            f"video_fps: expected {_LEAST_FPS:g} to {settings.video_fps_most:g} frames a second; came {fps:g}.",
            param=_param(index),
        )
    return rounded


def _param(index: int) -> str:
    return f"items[{index}]"
