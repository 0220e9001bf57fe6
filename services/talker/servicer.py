"""The Talker over gRPC: decode each message, call the engine, encode each frame the moment it is spoken."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import numpy as np

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import InternalError, InvalidInput
from antiphon.hosting.decoder_service import page_counts, service_load
from antiphon.hosting.service import HostedService
from antiphon.v1.generation_pb2 import FINISH_REASON_LENGTH, Sampling
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.v1.talker_service_pb2 import SpeakEnd, SpeakRequest, SpeakResponse, SpeakStart
from antiphon.wire import arrays, methods, tensors
from antiphon.wire.generation import (
    finish_reason_message,
    read_ids,
    read_prompt,
    read_sampling,
    read_share,
    timings_message,
)
from antiphon.wire.incoming import first_request, read_beside
from services.talker.config import TalkerSettings
from services.talker.engine import Script, Speech, TalkerEngine
from services.talker.request import ASSISTANT_ROWS, Frame


def host(settings: TalkerSettings) -> HostedService:
    return hosted(TalkerEngine(settings))


def hosted(engine: TalkerEngine) -> HostedService:
    servicer = TalkerServicer(engine)
    return HostedService(
        stage="talker",
        grpc_service=methods.SPEAK.service,
        add_to_server=lambda server: methods.SPEAK.add_to_server(server, servicer.speak),
        start=engine.start,
        close=engine.decoder.close,
        check=engine.decoder.check,
        load=lambda: service_load(engine.decoder.load()),
        signals=engine.signals,
        pages=lambda: page_counts(engine.decoder.load()),
    )


class TalkerServicer:
    def __init__(self, engine: TalkerEngine) -> None:
        self._engine = engine

    async def speak(
        self, requests: AsyncIterator[SpeakRequest], _context: object
    ) -> AsyncGenerator[SpeakResponse, None]:
        script = self._script((await first_request(requests)).start)
        if script.is_over:
            yield SpeakResponse(end=SpeakEnd(finish_reason=FINISH_REASON_LENGTH, frame_count=len(script.spoken)))
            return
        async with (
            aclosing(self._engine.speak(script)) as speech,
            read_beside(self._receive(requests, speech), "talker") as received,
        ):
            frame_count = len(script.spoken)
            async for frame in speech:
                yield _frame_message(frame_count, frame)
                frame_count += 1
            if speech.finish_reason is None:
                await received  # what was wrong with the input, and ended the speech
                raise InternalError("The Talker's speech ended without a reason.")
            reason, timings = finish_reason_message(speech.finish_reason), timings_message(speech.timings)
            timings.residual_codes_ms = speech.residual_codes_ms
            yield SpeakResponse(end=SpeakEnd(finish_reason=reason, frame_count=frame_count, timings=timings))

    def _script(self, start: SpeakStart) -> Script:
        vocabulary = self._engine.config.thinker.text.vocabulary
        codes = self._engine.talker_config.text.vocabulary
        return Script(
            prompt=read_prompt(start.prompt, vocabulary, rows_that_follow=ASSISTANT_ROWS),
            prefix_ids=read_ids(start.assistant_prefix_ids, vocabulary, name="assistant_prefix_ids").tolist(),
            voice=start.voice,
            max_frames=start.max_frames,
            cache_salt=start.cache_salt,
            share=read_share(start.scheduling),
            spoken=self._spoken(start.spoken) if start.HasField("spoken") else (),
            sampling=read_sampling(start.sampling, codes) if start.HasField("sampling") else None,
            residual_sampling=self._residual(start.residual_sampling) if start.HasField("residual_sampling") else None,
        )

    def _spoken(self, frames: CodecFrames) -> list[Frame]:
        """From the first one on, each code one that could have been spoken."""
        config = self._engine.talker_config
        if frames.first_frame != 0:
            raise InvalidInput(f"spoken.first_frame: expected 0; came {frames.first_frame}.", param="spoken")
        shape = (None, config.code_groups)
        unpacked = arrays.unpack(frames.codes, name="spoken.codes", shape=shape, data_types=(arrays.INT16,))
        codes = unpacked.astype(np.int16, copy=False)
        sizes = np.full(config.code_groups, config.code_predictor.vocabulary)
        sizes[0] = config.text.vocabulary
        if ((codes < 0) | (codes >= sizes)).any():
            raise InvalidInput(
                f"spoken.codes: expected codes from 0, the first of a frame below {sizes[0]}, the others below "
                f"{sizes[-1]}; one is outside.",
                param="spoken",
            )
        return list(codes)

    def _residual(self, sampling: Sampling) -> SamplingParameters:
        parameters = read_sampling(
            sampling, self._engine.talker_config.code_predictor.vocabulary, name="residual_sampling"
        )
        if parameters.penalises or parameters.logit_bias:
            raise InvalidInput(
                "residual_sampling: expected temperature, top_k, top_p and seed only; came a penalty or a bias.",
                param="residual_sampling",
            )
        return parameters

    async def _receive(self, requests: AsyncIterator[SpeakRequest], speech: Speech) -> None:
        """A fault in the input ends the speech."""
        try:
            async for request in requests:
                self._add(request, speech)
            speech.require_last_token()
        except BaseException:
            await speech.aclose()
            raise

    def _add(self, request: SpeakRequest, speech: Speech) -> None:
        kind = request.WhichOneof("message")
        if kind == "token":
            vocabulary = self._engine.config.thinker.text.vocabulary
            if not 0 <= request.token.id < vocabulary:
                raise InvalidInput(f"token.id: expected an id from 0 to {vocabulary - 1}; came {request.token.id}.")
            speech.add_token(request.token.id, is_last=request.token.is_last)
        elif kind == "hidden_rows":
            shape = (None, self._engine.talker_config.thinker_width)
            rows = tensors.unpack(request.hidden_rows.rows, name="hidden_rows.rows", shape=shape)
            speech.add_hidden_rows(request.hidden_rows.first_row, rows)
        else:
            raise InvalidInput(f"Expected hidden_rows or token after start; came {kind or 'an empty message'}.")


def _frame_message(first_frame: int, frame: Frame) -> SpeakResponse:
    return SpeakResponse(frames=CodecFrames(first_frame=first_frame, codes=arrays.pack(frame[None])))
