"""Has the beginning of a turn that is still to come computed: its media encoded, its prompt so far read by Thinker and
Talker and left in pages that the turn will find. Nothing is answered, and leaving it stops every stage.

It takes what others leave of a step: whoever is answered goes first, and a preparation that comes too late costs nobody
anything but itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import PromptBuilder
from antiphon.v1.talker_service_pb2 import SpeakRequest, SpeakStart
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, TextToken
from antiphon.wire.media import read_layout
from antiphon.wire.stages import Stages
from services.gateway.turns import messages as turn_messages
from services.gateway.turns.messages import TurnLimits
from services.gateway.turns.pipe import Pipe
from services.gateway.turns.request import TurnRequest

_ROWS_BETWEEN: Final = 8


class TurnPreparation:
    """Of one turn, once."""

    def __init__(self, stages: Stages, prompts: PromptBuilder, limits: TurnLimits, request: TurnRequest) -> None:
        """request: as it would be asked if nothing more came."""
        self._stages, self._prompts, self._limits = stages, prompts, limits
        self._request = replace(request, scheduling=replace(request.scheduling, priority="batch"))
        self._speak_start: asyncio.Future[SpeakStart] = asyncio.get_running_loop().create_future()
        self._to_thinker: Pipe[GenerateRequest] = Pipe(_ROWS_BETWEEN)
        self._to_talker: Pipe[SpeakRequest] = Pipe(_ROWS_BETWEEN)

    async def run(self, seconds: float) -> None:
        """Raises TimeoutError, and as an exception group what a stage raised."""
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._encode(seconds), name="prepare: encode")
            tasks.create_task(self._think(seconds), name="prepare: think")
            if self._request.speech is not None:
                tasks.create_task(self._speak(seconds), name="prepare: speak")

    async def _encode(self, seconds: float) -> None:
        if not self._request.media:
            await self._start(())
        else:
            await self._encode_media(seconds)
        await self._to_thinker.send(GenerateRequest(end=GenerateInputEnd()))
        self._to_thinker.close()

    async def _encode_media(self, seconds: float) -> None:
        layouts: list[MediaLayout] = []
        requests = turn_messages.encode_requests(self._request)
        async with aclosing(self._stages.encoders.encode(requests, timeout_seconds=seconds)) as responses:
            async for response in responses:
                if response.HasField("layout"):
                    layouts.append(read_layout(response.layout))
                    if len(layouts) == len(self._request.media):
                        await self._start(layouts)
                elif response.HasField("rows"):
                    await self._to_thinker.send(GenerateRequest(rows=response.rows))

    async def _start(self, layouts: Sequence[MediaLayout]) -> None:
        request = self._request
        turn_messages.check_duration(layouts, self._limits)
        prompt = await turn_messages.build_prompt(self._prompts, request, layouts)
        start = turn_messages.generate_start(replace(request, grammar=None), prompt, self._limits, self._prompts)
        start.prefill_only = True
        await self._to_thinker.send(GenerateRequest(start=start))
        if request.speech is not None:
            # The least for which a Talker reads its prompt: one frame, which nobody hears.
            least = replace(request.speech, max_frames=1)
            self._speak_start.set_result(turn_messages.speak_start(request, least, prompt, self._limits))

    async def _think(self, seconds: float) -> None:
        call = self._stages.thinker.generate(self._to_thinker, timeout_seconds=seconds)
        async with aclosing(call) as responses:
            async for response in responses:
                if response.HasField("hidden_rows"):
                    await self._to_talker.send(SpeakRequest(hidden_rows=response.hidden_rows))
        self._to_talker.close()

    async def _speak(self, seconds: float) -> None:
        start = await self._speak_start
        call = self._stages.talker.speak(self._speak_requests(start), timeout_seconds=seconds)
        async with aclosing(call) as responses:
            async for _ in responses:
                pass

    async def _speak_requests(self, start: SpeakStart) -> AsyncGenerator[SpeakRequest, None]:
        yield SpeakRequest(start=start)
        async for rows in self._to_talker:
            yield rows
        any_id = start.assistant_prefix_ids[-1]
        yield SpeakRequest(token=TextToken(id=any_id))
        yield SpeakRequest(token=TextToken(id=any_id, is_last=True))
