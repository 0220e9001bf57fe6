"""The codec over gRPC: frames in, waveform out; the first frame goes alone, later ones as their listener has time."""

from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import InvalidInput
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.v1.codec_service_pb2 import DecodeEnd, DecodeRequest, DecodeResponse, DecodeStart, Waveform
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.wire import arrays, methods
from antiphon.wire.generation import timings_message
from antiphon.wire.incoming import read_beside
from services.codec.config import CodecSettings
from services.codec.engine import CodecEngine, SpeechStream
from services.codec.frame_inbox import FrameInbox


def host(settings: CodecSettings) -> HostedService:
    return hosted(CodecEngine(settings))


def hosted(engine: CodecEngine) -> HostedService:
    servicer = CodecServicer(engine)
    return HostedService(
        stage="codec",
        grpc_service=methods.DECODE.service,
        add_to_server=lambda server: methods.DECODE.add_to_server(server, servicer.decode),
        start=engine.start,
        close=engine.close,
        check=engine.check,
        load=lambda: ServiceLoad(waiting=engine.waiting()),
        signals=engine.listeners.signals,
    )


class CodecServicer:
    def __init__(self, engine: CodecEngine) -> None:
        self._engine, self._settings = engine, engine.settings

    async def decode(
        self, requests: AsyncIterator[DecodeRequest], _context: object
    ) -> AsyncGenerator[DecodeResponse, None]:
        inbox = FrameInbox(self._settings.waiting_frames)
        with self._engine.open() as speech:
            async with read_beside(self._receive(requests, inbox, speech), "codec"):
                while True:
                    group = speech.next_group()
                    codes = await inbox.take(group.most, fills_until=group.fills_until)
                    if codes is None:
                        break
                    samples = await speech.push(codes)
                    if len(samples):
                        yield _waveform(speech.sample_count - len(samples), samples, speech.frame_count)
                        speech.delivered(len(samples))
            _require_known(speech)
            timings = timings_message(speech.timings())
            yield DecodeResponse(end=DecodeEnd(sample_count=speech.sample_count, timings=timings))

    async def _receive(self, requests: AsyncIterator[DecodeRequest], inbox: FrameInbox, speech: SpeechStream) -> None:
        try:
            await self._read(requests, inbox, speech)
        except Exception as error:
            await inbox.end(error)
        else:
            await inbox.end()

    async def _read(self, requests: AsyncIterator[DecodeRequest], inbox: FrameInbox, speech: SpeechStream) -> None:
        expected_frame, is_first = 0, True
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "end":
                return
            may_start, is_first = is_first, False
            if kind == "start" and may_start:
                speech.resume(_delivered(request.start))
                continue
            if kind != "frames":
                raise InvalidInput(f"Expected frames or end; came {kind or 'an empty message'}.")
            codes = self._codes(request.frames, expected_frame)
            audible = speech.audible(codes, expected_frame)
            expected_frame += len(codes)
            if len(audible):
                await inbox.put(audible)
        raise InvalidInput("The input broke off before its end message.")

    def _codes(self, frames: CodecFrames, expected_frame: int) -> NDArray[np.int16]:
        """Checks everything that could harm the model or the sound."""
        if frames.first_frame != expected_frame:
            raise InvalidInput(
                f"frames.first_frame: expected {expected_frame}, the frames so far; came {frames.first_frame}.",
                param="frames.first_frame",
            )
        shape = (None, self._engine.config.quantizers)
        codes = arrays.unpack(frames.codes, name="frames.codes", shape=shape, data_types=(arrays.INT16,))
        if not 1 <= len(codes) <= self._settings.frames_per_message:
            raise InvalidInput(
                f"frames.codes: expected 1 to {self._settings.frames_per_message} frames; came {len(codes)}.",
                param="frames.codes",
            )
        return self._within_codebook(codes.astype(np.int16, copy=False))

    def _within_codebook(self, codes: NDArray[np.int16]) -> NDArray[np.int16]:
        size = self._engine.config.codebook_size
        outside = codes[(codes < 0) | (codes >= size)]
        if len(outside):
            raise InvalidInput(
                f"frames.codes: expected codes from 0 to {size - 1}; came {outside[0]}.", param="frames.codes"
            )
        return codes


def _delivered(start: DecodeStart) -> int:
    if start.delivered_samples < 0:
        raise InvalidInput(
            f"start.delivered_samples: expected 0 or more; came {start.delivered_samples}.",
            param="start.delivered_samples",
        )
    return start.delivered_samples


def _require_known(speech: SpeechStream) -> None:
    if speech.lacks_samples:
        raise InvalidInput(
            f"start.delivered_samples: expected no more than all frames make; {speech.lacks_samples} are beyond them.",
            param="start.delivered_samples",
        )


def _waveform(first_sample: int, samples: NDArray[np.float32], frames_decoded: int) -> DecodeResponse:
    message = Waveform(first_sample=first_sample, samples=arrays.pack(samples), frames_decoded=frames_decoded)
    return DecodeResponse(waveform=message)
