"""How a call goes on at another replica: what that one is told, what of its answers is new, and when silence is odd.

A stage's integers are its checkpoint, so a call is resumed from what has passed through it: the Thinker's ids, the
Talker's frames, the samples that the listener has, the rows that the encoders have given.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from antiphon.telemetry.playback import Playback
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse, DecodeStart
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.v1.media_pb2 import CodecFrames, EmbeddingRows, Modality
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakResponse
from antiphon.v1.tensor_pb2 import Tensor
from antiphon.v1.thinker_service_pb2 import GenerateRequest, GenerateResponse
from antiphon.wire import arrays
from antiphon.wire.methods import RequestT, ResponseT

# A codec waits for more frames no longer than until its listener has so much sound.
_HURRY_SECONDS: Final = 0.4
# Of one message to a codec that decodes a speech again.
_FRAMES_A_MESSAGE: Final = 256


class Resumption(Protocol[RequestT, ResponseT]):
    """Of one call, through all its attempts."""

    # The requests, by their name in the oneof, that may be too large to be kept.
    bulk: str

    def told(self, request: RequestT) -> None:
        """A request goes out for the first time."""
        ...

    def told_again(self, kept: Sequence[RequestT]) -> Iterable[RequestT]:
        """What the next attempt begins with, of the requests that went out before."""
        ...

    def news(self, response: ResponseT) -> ResponseT | None:
        """What of an answer the caller does not have yet."""
        ...

    def owes(self) -> bool:
        """The stage has been told enough for its next answer."""
        ...


class EncodeResumption:
    bulk = "chunk"

    def __init__(self) -> None:
        self._layouts = 0
        self._rows: Counter[Modality] = Counter()
        self._has_all = False

    def told(self, request: EncodeRequest) -> None:
        self._has_all = request.HasField("end")

    def told_again(self, kept: Sequence[EncodeRequest]) -> Iterable[EncodeRequest]:
        return kept

    def news(self, response: EncodeResponse) -> EncodeResponse | None:
        if response.HasField("rows"):
            return self._new_rows(response)
        if response.HasField("layout"):
            if response.layout.index < self._layouts:
                return None
            self._layouts += 1
        return response

    def owes(self) -> bool:
        return self._has_all

    def _new_rows(self, response: EncodeResponse) -> EncodeResponse | None:
        rows = response.rows
        known = self._rows[rows.modality] - rows.first_row
        self._rows[rows.modality] = max(self._rows[rows.modality], rows.first_row + arrays.row_count(rows.rows))
        if known <= 0:
            return response
        if known >= arrays.row_count(rows.rows):
            return None
        new = EmbeddingRows(
            modality=rows.modality,
            first_row=rows.first_row + known,
            rows=arrays.without_first(rows.rows, known),
            deepstack=[arrays.without_first(layer, known) for layer in rows.deepstack],
        )
        return EncodeResponse(rows=new)


class GenerateResumption:
    bulk = "rows"

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._hidden_rows = 0
        self._has_all = False

    def told(self, request: GenerateRequest) -> None:
        self._has_all = request.HasField("end")

    def told_again(self, kept: Sequence[GenerateRequest]) -> Iterable[GenerateRequest]:
        return [self._resumed(request) if request.HasField("start") else request for request in kept]

    def news(self, response: GenerateResponse) -> GenerateResponse | None:
        if response.HasField("hidden_rows"):
            return self._new_rows(response)
        if response.HasField("token"):
            if self._ids:
                response.ClearField("cached_prompt_tokens")  # the first token has told it
            self._ids.append(response.token.id)
        return response

    def owes(self) -> bool:
        return self._has_all

    def _resumed(self, request: GenerateRequest) -> GenerateRequest:
        """All hidden rows come before the first token."""
        if not self._ids:
            return request
        resumed = GenerateRequest()
        resumed.CopyFrom(request)
        resumed.start.generated_ids.extend(self._ids)
        resumed.start.return_multimodal_hidden_rows = False
        return resumed

    def _new_rows(self, response: GenerateResponse) -> GenerateResponse | None:
        rows = response.hidden_rows
        known = self._hidden_rows - rows.first_row
        self._hidden_rows = max(self._hidden_rows, rows.first_row + arrays.row_count(rows.rows))
        if known >= arrays.row_count(rows.rows):
            return None
        if known > 0:
            rows.rows.CopyFrom(arrays.without_first(rows.rows, known))
            rows.first_row += known
        return response


class SpeakResumption:
    bulk = "hidden_rows"

    def __init__(self) -> None:
        self._tokens = 0
        self._has_all = False
        # Of the frames that came: their codes, and how many make a frame. Frames count those spoken before this call.
        self._codes = bytearray()
        self._frames = self._groups = 0

    def told(self, request: SpeakRequest) -> None:
        self._tokens += request.HasField("token")
        if request.HasField("start") and request.start.HasField("spoken"):
            self._frames = arrays.row_count(request.start.spoken.codes)
        self._has_all = request.HasField("token") and request.token.is_last

    def told_again(self, kept: Sequence[SpeakRequest]) -> Iterable[SpeakRequest]:
        return [self._resumed(request) if request.HasField("start") else request for request in kept]

    def news(self, response: SpeakResponse) -> SpeakResponse | None:
        if response.HasField("frames"):
            if response.frames.first_frame < self._frames:
                return None
            count, self._groups = response.frames.codes.shape
            self._codes += response.frames.codes.data
            self._frames += count
        return response

    def owes(self) -> bool:
        """A frame waits for the text token beside it."""
        return self._has_all or self._tokens > self._frames + 1

    def _resumed(self, request: SpeakRequest) -> SpeakRequest:
        if not self._codes:
            return request
        resumed = SpeakRequest()
        resumed.CopyFrom(request)
        codes = _codes(request.start.spoken.codes.data + bytes(self._codes), self._groups)
        resumed.start.spoken.CopyFrom(CodecFrames(codes=codes))
        return resumed


class DecodeResumption:
    # Frames are few bytes.
    bulk = ""

    def __init__(self) -> None:
        self._told_frames = self._decoded_frames = 0
        self._samples = 0
        self._has_all = False
        self._playback = Playback()

    def told(self, request: DecodeRequest) -> None:
        if request.HasField("frames"):
            self._told_frames += arrays.row_count(request.frames.codes)
        if request.HasField("start"):
            self._samples = request.start.delivered_samples
        self._has_all = request.HasField("end")

    def told_again(self, kept: Sequence[DecodeRequest]) -> Iterable[DecodeRequest]:
        frames = [request.frames.codes for request in kept if request.HasField("frames")]
        if not self._samples or not frames:
            return kept
        start = DecodeRequest(start=DecodeStart(delivered_samples=self._samples))
        return [start, *_together(frames), *(request for request in kept if request.HasField("end"))]

    def news(self, response: DecodeResponse) -> DecodeResponse | None:
        if not response.HasField("waveform"):
            return response
        waveform = response.waveform
        self._decoded_frames = max(self._decoded_frames, waveform.frames_decoded)
        count, known = arrays.row_count(waveform.samples), self._samples - waveform.first_sample
        if known >= count:
            return None
        if known > 0:
            waveform.samples.CopyFrom(arrays.without_first(waveform.samples, known))
            waveform.first_sample += known
        self._samples = waveform.first_sample + arrays.row_count(waveform.samples)
        self._playback.deliver(arrays.row_count(waveform.samples), time.monotonic())
        return response

    def owes(self) -> bool:
        """It lets frames wait for others while the listener has plenty of sound."""
        hurries_from = (self._playback.ends_at or 0.0) - _HURRY_SECONDS
        return self._has_all or (self._told_frames > self._decoded_frames and time.monotonic() >= hurries_from)


def _together(frames: Sequence[Tensor]) -> Iterator[DecodeRequest]:
    """The frames of many messages in few."""
    data, groups = b"".join(part.data for part in frames), frames[0].shape[1]
    size = len(data) // sum(arrays.row_count(part) for part in frames) * _FRAMES_A_MESSAGE
    for number, start in enumerate(range(0, len(data), size)):
        codes = _codes(data[start : start + size], groups)
        yield DecodeRequest(frames=CodecFrames(first_frame=number * _FRAMES_A_MESSAGE, codes=codes))


def _codes(data: bytes, groups: int) -> Tensor:
    """int16 (frames, code groups)"""
    return Tensor(data_type=arrays.INT16, shape=(len(data) // (2 * groups), groups), data=data)
