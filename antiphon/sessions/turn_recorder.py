"""Writes a turn's progress beside the turn: it never waits for the storage, and what waits is written together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import AntiphonError, AtCapacity, Conflict, Unavailable
from antiphon.sessions.progress import Progress
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import TurnWriter
from antiphon.telemetry.metrics import process_metrics

_LOG = logging.getLogger(__name__)
# While the storage is away; a turn writes again as soon as it is back.
_PAUSE_SECONDS: Final = 0.5


class TurnRecorder:
    """`record` costs no time of the turn. While the storage is away ids and frames wait in memory, as many as a journal
    may have; the turn goes on in any case."""

    def __init__(self, writer: TurnWriter, settings: SessionSettings) -> None:
        self._writer, self._settings = writer, settings
        self._waiting: list[Progress] = []
        self._recorded_bytes = 0
        self._has_waiting = asyncio.Event()
        # Set when another gateway took the turn over: this one must stop it.
        self.taken_over = asyncio.Event()
        # Set when what is written will not grow any more, whatever is recorded.
        self.has_given_up = False

    def record(self, token_ids: Sequence[int] = (), frames: NDArray[np.int16] | None = None) -> None:
        """Ids (ids,) and frames (frames, CODES_PER_FRAME) that follow on those recorded before."""
        ids = np.asarray(token_ids, np.int32)
        progress = Progress(ids) if frames is None else Progress(ids, frames.astype(np.int16))
        self._recorded_bytes += progress.size_bytes
        if self._recorded_bytes > self._settings.turn_progress_bytes:
            self._cut("the turn is longer than a journal may be")
        if progress and not self.has_given_up:
            self._waiting.append(progress)
            self._has_waiting.set()

    async def flush(self) -> None:
        """Writes what waits now. Raises what the writer raises."""
        while self._waiting:
            count = len(self._waiting)
            await self._writer.append(Progress.joined(self._waiting[:count]))
            del self._waiting[:count]
        self._has_waiting.clear()

    async def run(self) -> None:
        """Writes until it is cancelled, or cannot any more."""
        while not self.has_given_up:
            await self._has_waiting.wait()
            await asyncio.sleep(self._settings.turn_write_seconds)
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        try:
            await self.flush()
        except Conflict:
            self._give_up("another gateway took it over")
            self.taken_over.set()
        except (Unavailable, AtCapacity):
            await asyncio.sleep(_PAUSE_SECONDS)
        except AntiphonError as error:
            self._cut(error.message)

    def _cut(self, why: str) -> None:
        if not self.has_given_up:
            process_metrics().cut_journals.inc()
        self._give_up(why)

    def _give_up(self, why: str) -> None:
        if not self.has_given_up:
            _LOG.warning("The journal of a turn ends before the turn: %s.", why.rstrip("."))
        self.has_given_up = True
        self._waiting.clear()


@asynccontextmanager
async def recording(
    writer: TurnWriter, settings: SessionSettings, is_over: Callable[[], bool] = lambda: True
) -> AsyncIterator[TurnRecorder]:
    """At the block's end what still waits is written, and where the turn came to its own end, that it did: it was left
    without an exception, and `is_over`. Neither may fail a turn: without Redis it was answered all the same."""
    recorder = TurnRecorder(writer, settings)
    task = asyncio.create_task(recorder.run(), name="turn journal")
    try:
        yield recorder
    except BaseException:
        await _stop(task)
        await _quietly_end(recorder, writer, is_finished=False)
        raise
    await _stop(task)
    await _quietly_end(recorder, writer, is_finished=is_over())


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _quietly_end(recorder: TurnRecorder, writer: TurnWriter, *, is_finished: bool) -> None:
    if recorder.has_given_up:
        return
    try:
        await recorder.flush()
        if is_finished:
            await writer.finish()
    except AntiphonError as error:
        if not isinstance(error, Conflict):
            process_metrics().cut_journals.inc()
        _LOG.warning("The end of a turn was not journalled: %s", error.message)
