"""Where a turn begins that another gateway has begun, and who notes how far it comes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from antiphon.sessions.progress import Progress
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeStart
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.v1.talker_service_pb2 import SpeakStart
from antiphon.v1.thinker_service_pb2 import GenerateStart
from antiphon.wire import arrays

# Of one message to a codec that decodes a speech again.
_FRAMES_A_MESSAGE: Final = 256


class ProgressLog(Protocol):
    def record(self, token_ids: Sequence[int] = (), frames: NDArray[np.int16] | None = None) -> None:
        """Ids (ids,) and frames (frames, CODES_PER_FRAME) that are new. Costs no time of the turn."""
        ...


@dataclass(frozen=True, slots=True)
class TurnCourse:
    # Of the answer: its ids are told again, its frames are heard from `delivered_samples` on.
    known: Progress = field(default_factory=Progress)
    delivered_samples: int = 0
    # None notes nothing.
    log: ProgressLog | None = None

    def resume_text(self, start: GenerateStart) -> None:
        start.generated_ids.extend(self.known.token_ids.tolist())

    def resume_speech(self, start: SpeakStart) -> None:
        if len(self.known.frames):
            start.spoken.CopyFrom(_frames(0, self.known.frames))

    def resume_sound(self) -> Iterator[DecodeRequest]:
        """What a codec is told before the first new frame."""
        if self.delivered_samples:
            yield DecodeRequest(start=DecodeStart(delivered_samples=self.delivered_samples))
        for first in range(0, len(self.known.frames), _FRAMES_A_MESSAGE):
            yield DecodeRequest(frames=_frames(first, self.known.frames[first : first + _FRAMES_A_MESSAGE]))

    def wrote(self, token_id: int) -> None:
        if self.log is not None:
            self.log.record((token_id,))

    def spoke(self, frames: CodecFrames) -> None:
        if self.log is not None:
            codes = arrays.unpack(frames.codes, name="frames.codes", shape=(None, None), data_types=(arrays.INT16,))
            self.log.record(frames=codes.astype(np.int16, copy=False))


FROM_THE_BEGINNING: Final = TurnCourse()


def _frames(first_frame: int, frames: NDArray[np.int16]) -> CodecFrames:
    return CodecFrames(first_frame=first_frame, codes=arrays.pack(frames))
