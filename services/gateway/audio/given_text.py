"""A text that is given takes the Thinker's place in a turn: the Talker hears it as if it had been thought."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from antiphon.v1.generation_pb2 import FINISH_REASON_STOP, Timings
from antiphon.v1.thinker_service_pb2 import GenerateEnd, GenerateRequest, GenerateResponse, TextToken
from antiphon.wire.stages import Stages


class GivenText:
    """`wire.stages.Thinker`, of one turn."""

    def __init__(self, token_ids: Sequence[int], end_id: int) -> None:
        self._token_ids: Final = (*token_ids, end_id)

    async def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        del timeout_seconds
        async for request in requests:
            if request.HasField("end"):
                break
        last = len(self._token_ids) - 1
        for place, token_id in enumerate(self._token_ids):
            yield GenerateResponse(token=TextToken(id=token_id, is_last=place == last))
        yield GenerateResponse(end=GenerateEnd(finish_reason=FINISH_REASON_STOP, timings=Timings()))


def with_text(stages: Stages, text: GivenText) -> Stages:
    """The same stages, near or not, but for the Thinker."""
    return replace(stages, thinker=text, of_affinity=lambda affinity: with_text(stages.near(affinity), text))
