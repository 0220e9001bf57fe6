"""Requests of one tenant, and what they cost the encoders."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from antiphon.model.audio_encoder import AudioEncoder, AudioWindow
from antiphon.model.vision_encoder import VisionEncoder
from antiphon.v1.encoder_service_pb2 import EncodeResponse
from services.encoders.encoding import Encoding
from services.encoders.media import MediaItem
from tests.encoders.conftest import HostedEncoders, Sent, answers, requests

MINE, THEIRS = b"mine", b"theirs"


class Work:
    """Files read, calls of the models, and the seconds of each window of sound that was encoded."""

    def __init__(self) -> None:
        self.files = self.sounds = self.pictures = 0
        self.windows: list[float] = []

    def taken(self) -> tuple[int, int, int]:
        """Since the last time."""
        work = (self.files, self.sounds, self.pictures)
        self.files = self.sounds = self.pictures = 0
        return work


@contextmanager
def watched() -> Iterator[Work]:
    work = Work()
    read, hear, see = Encoding._read_item, AudioEncoder.encode_windows, VisionEncoder.encode_many

    def reads(self: Encoding, item: MediaItem) -> object:
        work.files += 1
        return read(self, item)

    def hears(self: AudioEncoder, windows: Sequence[AudioWindow]) -> object:
        work.sounds += 1
        work.windows += [window.mel.shape[1] / 100 for window in windows]
        return hear(self, windows)

    def sees(self: VisionEncoder, frames: object) -> object:
        work.pictures += 1
        return see(self, frames)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoding, "_read_item", reads)
        patch.setattr(AudioEncoder, "encode_windows", hears)
        patch.setattr(VisionEncoder, "encode_many", sees)
        yield work


async def ask(encoders: HostedEncoders, *media: Sent, salt: bytes = MINE) -> list[EncodeResponse]:
    return await answers(encoders, requests(*media, cache_salt=salt))


def told(responses: list[EncodeResponse]) -> list[bytes]:
    """Layouts and rows, bit for bit."""
    return [each.SerializeToString(deterministic=True) for each in responses if not each.HasField("end")]
