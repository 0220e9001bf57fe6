"""A decoder whose model takes a while to load, and what its requests may hold in media rows together."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from antiphon.engine.compute_gate import OPEN, Gate
from antiphon.engine.decoder import Decoder, Submission
from antiphon.engine.generation import Generation, OutputT
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.load import Load
from antiphon.engine.runner import Runner
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.engine.sequence import RequestT
from antiphon.errors import AtCapacity, Unavailable


@dataclass(frozen=True, slots=True)
class DecoderBounds:
    steps: SchedulerLimits
    # The key/value store.
    page_count: int
    page_rows: int
    # Held by all requests together.
    media_rows: int
    # A step begins before the one before it has been read.
    overlaps: bool = False
    # Before steps on cores that are shared with other stages.
    gate: Gate = OPEN
    # A step that takes longer never ends.
    longest_step_seconds: float = math.inf


class LoadingDecoder(Generic[RequestT, OutputT]):
    """name: of the stage, such as "talker". Until `start` has ended its callers are told to come back."""

    def __init__(self, name: str, bounds: DecoderBounds) -> None:
        self._name, self._bounds = name, bounds
        self._decoder: Decoder[RequestT, OutputT] | None = None
        self.held_media_rows = 0

    async def start(self, load: Callable[[], Runner[RequestT, OutputT]]) -> None:
        """Loads the model in a thread, then starts the engine's own."""
        runner = await asyncio.to_thread(load)
        pool = PagePool(self._bounds.page_count, self._bounds.page_rows)
        bounds = self._bounds
        self._decoder = Decoder(
            runner,
            bounds.steps,
            pool,
            name=self._name,
            overlaps=bounds.overlaps,
            gate=bounds.gate,
            longest_step_seconds=bounds.longest_step_seconds,
        )
        self._decoder.start()

    async def close(self) -> None:
        if self._decoder is not None:
            await self._decoder.stop()

    def forget_pace(self) -> None:
        """Once it has warmed up."""
        self._running().forget_pace()

    def check(self) -> None:
        """Raises when it cannot answer any more."""
        self._running().check()

    def load(self) -> Load:
        return self._running().load()

    def submit(self, submission: Submission[RequestT], *, media_rows: int) -> Generation[OutputT]:
        """Raises AtCapacity, ContextTooLong or Unavailable. `release_media` follows when the request is closed."""
        if self.held_media_rows + media_rows > self._bounds.media_rows:
            raise AtCapacity(f"The {self._name} holds all the media that it may. Try again soon.")
        generation = self._running().submit(submission)
        self.held_media_rows += media_rows
        return generation

    def release_media(self, media_rows: int) -> None:
        self.held_media_rows -= media_rows

    def _running(self) -> Decoder[RequestT, OutputT]:
        if self._decoder is None:
            raise Unavailable(f"The {self._name} is still loading its model. Try again soon.")
        return self._decoder
