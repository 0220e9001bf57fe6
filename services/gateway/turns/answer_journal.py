"""Keeps streamed answers so that any gateway can go on with them: what was asked, and how far the answer came.

Beginning a journal and writing it hold no answer up. Where it cannot be kept the answer is given all the same.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from antiphon.errors import AntiphonError, Conflict, NotFound
from antiphon.prompt.conversation import Text
from antiphon.sessions.media_store import MediaStore
from antiphon.sessions.opening import Sessions
from antiphon.sessions.progress import Progress
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import Charged, TurnJournal, TurnWriter
from antiphon.sessions.turn_recorder import TurnRecorder, recording
from services.gateway.turns.record import MediumName, TurnRecord, pack_record, unpack_record
from services.gateway.turns.request import TurnRequest
from services.gateway.turns.usage import TurnUsage

_LOG = logging.getLogger(__name__)

# Of a record; longer ones are packed in a thread.
_INLINE_BYTES: Final = 1 << 16

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class KeptTurn:
    """How somebody else began it."""

    request: TurnRequest
    default_answer_tokens: int
    telling: str


class AnswerJournal:
    """Of one answer, while this gateway gives it."""

    def __init__(self, writer: "_LateWriter", recorder: TurnRecorder, known: Progress) -> None:
        self._writer = writer
        self.recorder = recorder
        # What there was when this gateway began.
        self.known = known

    def is_kept(self) -> bool:
        """Another gateway could go on."""
        return self._writer.is_open

    async def wait(self, seconds: float) -> None:
        """Until it is kept, but no longer than so."""
        await asyncio.wait({self._writer.opening}, timeout=seconds)


@dataclass(frozen=True, slots=True)
class AnswerJournals:
    journal: TurnJournal
    media: MediaStore
    settings: SessionSettings

    @classmethod
    def of(cls, sessions: Sessions, settings: SessionSettings) -> "AnswerJournals":
        return cls(sessions.journal, sessions.media, settings)

    @asynccontextmanager
    async def begun(
        self, tenant: str, answer_id: str, turn: KeptTurn, usage: TurnUsage, *, is_told: bool = False
    ) -> AsyncIterator[AnswerJournal]:
        """usage: of the turn, as it grows. Begins when its prompt is built: what is refused before is not kept. When
        the block is left the turn is charged to whoever still has it. is_told: its client knows of it before its first
        word, so that it can go on from there."""
        begins = self._begin(tenant, answer_id, turn, usage.prompt_is_built)
        async with self._kept(begins, Progress(), usage, usage.prompt_is_built, is_told=is_told) as journal:
            yield journal

    async def find(self, tenant: str, answer_id: str, take_room: Callable[[int], None]) -> KeptTurn:
        """take_room: for so many bytes, before they are read; raises where there is none. Raises NotFound."""
        take_room(await self.journal.size_bytes(tenant, answer_id))
        packed = (await self.journal.read(tenant, answer_id)).record
        record = await _beside_the_loop(len(packed), unpack_record, packed)
        take_room(sum(name.byte_count for name in record.media))
        media = tuple([name.with_data(await self.media.get(tenant, name.content_hash)) for name in record.media])
        return KeptTurn(replace(record.request, media=media), record.default_answer_tokens, record.telling)

    @asynccontextmanager
    async def taken_over(self, tenant: str, answer_id: str, usage: TurnUsage) -> AsyncIterator[AnswerJournal]:
        """From now on nobody else gives this answer. Raises NotFound."""
        turn, writer = await self.journal.take_over(tenant, answer_id)
        usage.charged = turn.charged
        async with self._kept(_at_once(writer), turn.progress, usage) as journal:
            yield journal

    async def _begin(self, tenant: str, answer_id: str, turn: KeptTurn, may_begin: asyncio.Event) -> TurnWriter:
        await may_begin.wait()
        names = [MediumName.of(medium, await self.media.put(tenant, medium.data)) for medium in turn.request.media]
        record = TurnRecord(replace(turn.request, media=()), tuple(names), turn.default_answer_tokens, turn.telling)
        packed = await _beside_the_loop(_text_characters(record.request), pack_record, record)
        return await self.journal.begin(tenant, answer_id, packed)

    @asynccontextmanager
    async def _kept(
        self,
        opening: Coroutine[Any, Any, TurnWriter],
        known: Progress,
        usage: TurnUsage,
        may_begin: asyncio.Event | None = None,
        *,
        is_told: bool = True,
    ) -> AsyncIterator[AnswerJournal]:
        """may_begin: of a new one."""
        writer = _LateWriter(asyncio.create_task(opening, name="turn journal begins"))
        try:
            async with recording(writer, self.settings, lambda: usage.finish_reason is not None) as recorder:
                yield AnswerJournal(writer, recorder, known)
        except BaseException:
            if may_begin is not None and not may_begin.is_set():
                await writer.abandon()
            else:
                is_empty = not (is_told or usage.text_tokens or usage.audio_tokens)
                await _close(writer, usage, is_empty=is_empty)
            raise
        await _close(writer, usage, is_empty=False)


class _LateWriter:
    """Whose journal may still be beginning; nothing is written before it has."""

    def __init__(self, opening: asyncio.Task[TurnWriter]) -> None:
        self.opening = opening

    @property
    def is_open(self) -> bool:
        return self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None

    async def abandon(self) -> None:
        """It has not begun, and will not."""
        self.opening.cancel()
        await asyncio.wait({self.opening})

    async def append(self, progress: Progress) -> None:
        await (await self._writer()).append(progress)

    async def finish(self) -> None:
        await (await self._writer()).finish()

    async def charge(self, charged: Charged) -> None:
        await (await self._writer()).charge(charged)

    async def drop(self) -> None:
        await (await self._writer()).drop()

    async def _writer(self) -> TurnWriter:
        """Raises NotFound where the journal could not be begun, however often it is asked."""
        try:
            return await asyncio.shield(self.opening)
        except AntiphonError as error:
            raise NotFound(f"It could not be begun. {error.message}") from error


async def _beside_the_loop(size: int, work: Callable[[_Given], _Made], given: _Given) -> _Made:
    """What is small is done at once."""
    return work(given) if size <= _INLINE_BYTES else await asyncio.to_thread(work, given)


def _text_characters(request: TurnRequest) -> int:
    messages = request.conversation.messages
    said = sum(len(part.text) for message in messages for part in message.parts if isinstance(part, Text))
    called = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    return said + called + sum(map(len, request.conversation.tools))


async def _at_once(writer: TurnWriter) -> TurnWriter:
    return writer


async def _close(writer: _LateWriter, usage: TurnUsage, *, is_empty: bool) -> None:
    """An answer that goes on elsewhere is charged there, with what was made of it here. is_empty: it failed before any
    client knew of it, so nobody can go on with it."""
    try:
        await (writer.drop() if is_empty else writer.charge(usage.total))
    except Conflict:
        usage.is_charged_elsewhere = True
    except AntiphonError as error:
        _LOG.warning("What was charged of a turn was not journalled: %s", error.message)
