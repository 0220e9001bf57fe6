"""What the encoders are asked for and what they answer, apart from how it travels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from antiphon.prompt.conversation import Modality
from services.encoders.sounds import Samples


@dataclass(frozen=True, slots=True)
class MediaItem:
    modality: Modality
    data: bytes
    # Of a video only.
    video_fps: float = 2.0
    use_audio_in_video: bool = False


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a medium is: what its layout follows from."""

    # (frames, 3, height, width), as the model sees them.
    frames_shape: tuple[int, ...] | None = None
    # Of its sound, 16 kHz.
    sample_count: int | None = None


@dataclass(frozen=True, slots=True)
class Medium:
    """One item, read: a sound, an image, or a video and perhaps its sound."""

    item: MediaItem
    # uint8 (frames, 3, height, width), as the model sees them.
    frames: Tensor | None = None
    sound: Samples | None = None

    @property
    def extent(self) -> Extent:
        shape = None if self.frames is None else tuple(self.frames.shape)
        return Extent(shape, None if self.sound is None else len(self.sound))

    @property
    def byte_count(self) -> int:
        """Of what the file unfolded to."""
        return sum(part.nbytes for part in (self.frames, self.sound) if part is not None)


@dataclass(frozen=True, slots=True)
class MediaRows:
    """Rows of one modality, counted over the whole prompt."""

    modality: Modality
    first_row: int
    rows: Tensor  # (rows, thinker width)
    deepstack: tuple[Tensor, ...] = ()

    def parts(self, bytes_each: int) -> list["MediaRows"]:
        """The same rows in parts of about so many bytes, at least one row each."""
        levels = (self.rows, *self.deepstack)
        row_bytes = sum(level.shape[1] * level.element_size() for level in levels)
        step = max(bytes_each // row_bytes, 1)
        cut = zip(*(torch.split(level, step) for level in levels), strict=True)
        return [
            MediaRows(self.modality, self.first_row + index * step, rows, tuple(deepstack))
            for index, (rows, *deepstack) in enumerate(cut)
        ]
