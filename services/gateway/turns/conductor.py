"""One turn, told once: encode media, build the prompt, think, speak, decode; each stage in its own task.

All streams are opened at once. Token ids go to the Talker as they come and the first frame goes to the codec alone.
What happens comes out as events in a bounded pipe; a full one holds every stage back, and leaving the turn closes them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import DeadlineExceeded, InternalError, InvalidInput
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import PromptBuilder
from antiphon.v1.codec_service_pb2 import DecodeInputEnd, DecodeRequest
from antiphon.v1.media_pb2 import CodecFrames
from antiphon.v1.talker_service_pb2 import SpeakRequest
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateStart, TextToken
from antiphon.wire import arrays
from antiphon.wire.errors import family_member
from antiphon.wire.media import read_layout
from antiphon.wire.replay import RepeatableRequests
from antiphon.wire.stages import Stages
from services.gateway.config import GatewaySettings
from services.gateway.turns import messages as turn_messages
from services.gateway.turns import recovery as turn_recovery
from services.gateway.turns.account import TurnAccount
from services.gateway.turns.answer_reader import AnswerReader
from services.gateway.turns.course import FROM_THE_BEGINNING, TurnCourse
from services.gateway.turns.messages import TurnLimits
from services.gateway.turns.pipe import Pipe
from services.gateway.turns.preparation import TurnPreparation
from services.gateway.turns.recovery import MediaAgain
from services.gateway.turns.request import SpeechDelta, TurnEvent, TurnRequest
from services.gateway.turns.watch import TurnWatch

# Row and frame messages that may wait between two stages; text tokens are few bytes and may all wait.
_MESSAGES_BETWEEN: Final = 8


@dataclass(frozen=True, slots=True)
class Conductor:
    """What every turn needs; holds nothing of any."""

    stages: Stages
    prompts: PromptBuilder
    limits: TurnLimits
    settings: GatewaySettings

    @asynccontextmanager
    async def open_turn(
        self, request: TurnRequest, watch: TurnWatch, course: TurnCourse = FROM_THE_BEGINNING
    ) -> AsyncIterator[AsyncIterator[TurnEvent]]:
        """The events of one turn, the last a TurnEnd. Of one that goes on they tell all text, and the sound that its
        listener lacks. Leaving the block stops every stage before it returns."""
        turn = _Turn(self, turn_recovery.with_seeds(request), watch, course)
        running = asyncio.create_task(turn.run(), name="turn")
        try:
            yield turn.events
        finally:
            running.cancel()
            await asyncio.wait({running})

    async def prepare(self, request: TurnRequest) -> None:
        """Returns once what such a turn begins with can be found by the next ones of its tenant. Cancel it when it is
        not worth it any more. Raises what the stages raise, in groups."""
        if request.cache_salt:
            stages = self.stages.near(turn_recovery.affinity(request))
            await TurnPreparation(stages, self.prompts, self.limits, request).run(self.settings.turn_seconds)


class _Turn:
    def __init__(self, conductor: Conductor, request: TurnRequest, watch: TurnWatch, course: TurnCourse) -> None:
        settings = conductor.settings
        self._prompts, self._limits = conductor.prompts, conductor.limits
        self._stages = conductor.stages.near(turn_recovery.affinity(request))
        self._request, self._watch, self._course = request, watch, course
        # Of the answer: ids written elsewhere that have not been told here yet.
        self._known_ids = deque[int](course.known.token_ids.tolist())
        self._seconds = settings.turn_seconds
        self._media = MediaAgain(self._stages, request, self._seconds)
        self._generate_start = GenerateStart()
        self.events: Pipe[TurnEvent] = Pipe(settings.event_queue_items)
        self._to_thinker: Pipe[GenerateRequest] = Pipe(_MESSAGES_BETWEEN)
        self._to_talker: Pipe[SpeakRequest] = Pipe(conductor.limits.context_tokens)
        self._to_codec: Pipe[DecodeRequest] = Pipe(_MESSAGES_BETWEEN)
        # Of the answer; there once the prompt is, which may begin it.
        self._reader: AnswerReader | None = None
        self._is_silent = self._has_rows = False
        self._is_started = asyncio.Event()
        self._account = TurnAccount()

    async def run(self) -> None:
        """Ends the events with what went wrong, if something did."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._conduct()
        except TimeoutError:
            late = DeadlineExceeded(f"The answer took longer than {self._seconds:g} s. Ask for a shorter one.")
            self.events.close(late)
        except Exception as error:
            known = family_member(error)
            if known is None:
                known = InternalError("A turn failed.")
                known.__cause__ = error
            if known.param == "grammar" and self._request.grammar is not None:
                known.param = self._request.grammar.param
            self.events.close(known)
        else:
            self.events.close()

    async def _conduct(self) -> None:
        if not self._request.media:
            await self._start(())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._encode(), name="encode")
            tasks.create_task(self._think(), name="think")
            if self._request.speech is not None:
                tasks.create_task(self._speak(), name="speak")
                tasks.create_task(self._decode(), name="decode")
        await self.events.send(self._account.end(self._reader))

    async def _start(self, layouts: Sequence[MediaLayout]) -> None:
        """The layouts are known, so the prompt is; Thinker and Talker begin to read it."""
        request = self._request
        prompt = await turn_messages.build_prompt(self._prompts, request, layouts)
        start = turn_messages.generate_start(request, prompt, self._limits, self._prompts)
        if request.speech is not None:
            speak = turn_messages.speak_start(request, request.speech, prompt, self._limits)
            self._course.resume_speech(speak)
            await self._to_talker.send(SpeakRequest(start=speak))
        self._course.resume_text(start)
        self._generate_start = start
        await self._to_thinker.send(GenerateRequest(start=start))
        self._account.prompt_tokens = prompt.counts
        self._reader = turn_messages.answer_reader(self._prompts, request, prompt)
        self._watch.prompt_built(prompt.counts, sum(layout.audio_seconds for layout in layouts))
        self._is_started.set()

    async def _encode(self) -> None:
        """Layouts of all media, then their rows, straight on to the Thinker."""
        self._watch.prepared()
        if self._request.media:
            try:
                await self._encode_media()
            except InvalidInput as error:
                error.param = turn_messages.param_of_item(error, self._request.media)
                raise
        self._watch.encoded()
        await self._to_thinker.send(GenerateRequest(end=GenerateInputEnd()))
        self._to_thinker.close()

    async def _encode_media(self) -> None:
        layouts: list[MediaLayout] = []
        call = self._stages.encoders.encode(self._media.encode_requests(), timeout_seconds=self._seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                match response.WhichOneof("message"):
                    case "layout":
                        layouts.append(read_layout(response.layout))
                        if len(layouts) == len(self._request.media):
                            turn_messages.check_duration(layouts, self._limits)
                            await self._start(layouts)
                    case "rows":
                        await self._to_thinker.send(GenerateRequest(rows=response.rows))
                    case "end":
                        self._account.note("encoders", response.end.timings)
                        self._watch.media_encoded(len(self._request.media), cached=response.end.cached_items)
        self._account.require("encoders")
        if not self._is_started.is_set():
            raise InternalError(f"The encoders told {len(layouts)} layouts of {len(self._request.media)} media.")

    async def _think(self) -> None:
        await self._is_started.wait()
        requests = RepeatableRequests(self._to_thinker, self._media.rows)
        call = self._stages.thinker.generate(requests, timeout_seconds=self._seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                match response.WhichOneof("message"):
                    case "hidden_rows":
                        await self._pass_rows(SpeakRequest(hidden_rows=response.hidden_rows))
                    case "token":
                        self._account.cached_tokens += response.cached_prompt_tokens
                        self._watch.prompt_cached(response.cached_prompt_tokens)
                        if await self._tell_known():
                            break
                        self._course.wrote(response.token.id)
                        if await self._tell(response.token):
                            break
                    case "end":
                        await self._read_rows()
                        await self._tell_known(has_last=True)
                        self._account.finish_with(response.end.finish_reason)
                        self._account.note("thinker", response.end.timings)
            else:
                self._account.require("thinker")
        self._to_thinker.abandon()
        self._to_talker.close()

    async def _pass_rows(self, rows: SpeakRequest) -> None:
        self._has_rows = True
        await self._to_talker.send(rows, limit=_MESSAGES_BETWEEN)

    async def _read_rows(self) -> None:
        """A Thinker that was given the whole of an answer tells its end only; the Talker may still be speaking."""
        if self._has_rows or not self._generate_start.return_multimodal_hidden_rows:
            return
        async with aclosing(self._media.hidden_rows(self._generate_start)) as rows:
            async for row in rows:
                await self._pass_rows(row)

    async def _tell_known(self, *, has_last: bool = False) -> bool:
        """What was written elsewhere; has_last: the answer ends with it."""
        while self._known_ids:
            token_id = self._known_ids.popleft()
            if await self._tell(TextToken(id=token_id, is_last=has_last and not self._known_ids)):
                return True
        return False

    async def _tell(self, token: TextToken) -> bool:
        """One token to the Talker and its text to the client; True when a stop string or a call has ended it."""
        if self._reader is None:
            raise InternalError("The Thinker wrote before it was asked.")
        self._watch.token()
        self._account.text_tokens += 1
        heard = self._reader.push(token.id, is_last=token.is_last)
        if self._request.speech is not None and not self._is_silent:
            self._is_silent = token.is_last or heard.is_cut or heard.is_silent
            await self._hand_over(heard.spoken_ids, token.id, is_last=self._is_silent)
        for event in heard.told:
            await self.events.send(event)
        return heard.is_cut

    async def _hand_over(self, token_ids: Sequence[int], newest_id: int, *, is_last: bool) -> None:
        """The last token closes the speech and is never spoken itself: an end of turn, where the answer was cut, or the
        beginning of a call."""
        spoken = token_ids[:-1] if is_last and token_ids[-1:] == (newest_id,) else token_ids
        for token_id in spoken:
            await self._to_talker.send(SpeakRequest(token=TextToken(id=token_id)))
        if is_last:
            await self._to_talker.send(SpeakRequest(token=TextToken(id=newest_id, is_last=True)))

    async def _speak(self) -> None:
        await self._is_started.wait()
        await self._resume_sound()
        requests = RepeatableRequests(self._to_talker, lambda: self._media.hidden_rows(self._generate_start))
        call = self._stages.talker.speak(requests, timeout_seconds=self._seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                match response.WhichOneof("message"):
                    case "frames":
                        self._course.spoke(response.frames)
                        await self._pass_frames(response.frames)
                    case "end":
                        self._account.finish_with(response.end.finish_reason)
                        self._account.note("talker", response.end.timings)
        self._account.require("talker")
        self._to_talker.abandon()
        await self._to_codec.send(DecodeRequest(end=DecodeInputEnd()))
        self._to_codec.close()

    async def _resume_sound(self) -> None:
        for request in self._course.resume_sound():
            if request.HasField("frames"):
                await self._pass_frames(request.frames)
            else:
                await self._to_codec.send(request)

    async def _pass_frames(self, frames: CodecFrames) -> None:
        self._watch.frames(frames.codes.shape[0])
        self._account.frames += frames.codes.shape[0]
        await self._to_codec.send(DecodeRequest(frames=frames))

    async def _decode(self) -> None:
        await self._is_started.wait()  # until then the encoders' call is the only one that anybody waits for
        call = self._stages.codec.decode(self._to_codec, timeout_seconds=self._seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                match response.WhichOneof("message"):
                    case "waveform":
                        self._watch.pcm()
                        samples = arrays.unpack(response.waveform.samples, name="waveform.samples", shape=(None,))
                        await self.events.send(SpeechDelta(cast(NDArray[np.float32], samples)))
                    case "end":
                        self._account.note("codec", response.end.timings)
        self._account.require("codec")
