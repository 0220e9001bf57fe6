"""One client's connection for as long as it lasts: reads events, writes events, gives answers, and ends with a reason.

Its reader, its writer or its time end it; whatever else runs for it is stopped with them.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from antiphon.errors import AntiphonError
from antiphon.telemetry.first_packet import FirstPacketClock
from services.gateway.http.error_envelope import ErrorBody, envelope_of, log_defect, status_of
from services.gateway.realtime.ahead import Ahead
from services.gateway.realtime.answering import Answering
from services.gateway.realtime.commands import Commands
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.items import Item
from services.gateway.realtime.core.outcomes import (
    AnswerComing,
    AnswerForeseen,
    BufferCleared,
    Event,
    ItemAdded,
    ItemDone,
    ListenerStopped,
    NothingForeseen,
    Outcomes,
    StartAnswer,
    StopAnswer,
    Transcribe,
)
from services.gateway.realtime.dialect.client_events import AnyEvent, event_id_of, read_event
from services.gateway.realtime.dialect.frames import Frame
from services.gateway.realtime.dialect.server_events import Teller
from services.gateway.realtime.keeping import TAKEN_OVER, Keeping
from services.gateway.realtime.outbox import ClientStalledError, Outbox
from services.gateway.realtime.resuming import ResumedAnswer
from services.gateway.realtime.transcribing import Transcribing
from services.gateway.turns.gate import TurnGate

# Shorter frames are read at once, longer ones in a thread.
_INLINE_BYTES: Final = 1 << 16
_FLUSH_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.5
# A closing frame holds no more than 123 bytes.
_REASON_CHARACTERS: Final = 120


@dataclass(frozen=True, slots=True)
class Closing:
    """Code and reason of the closing frame (RFC 6455); of what the client is told as an error before, the code."""

    code: int
    reason: str
    error_code: str | None = None


_EXPIRED: Final = Closing(1000, "The session has reached its maximum length.", "session_expired")
_IDLE: Final = Closing(1000, "The session was idle for too long.", "session_idle")
_STOPPING: Final = Closing(1001, "This server is stopping. Connect again, to another one.")
# "Service restart", in the registry of RFC 6455: an answer was still being given.
_CUT: Final = Closing(1012, "This server is stopping. Connect again, to another one.")
# Where the session is kept.
_ADVICE: Final = " Name 'session_id' and 'last_event_id'."
_STALLED: Final = Closing(1008, "The client reads too slowly.")
_DEFECT: Final = Closing(1011, "The server failed. It is not your fault.")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a session does beside reading and writing."""

    answering: Answering
    transcribing: Transcribing
    ahead: Ahead


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a client is told first."""

    # The items that there are from before, behind the session.
    tells_items: bool = False
    # To one who comes back to an event of his: what followed on it, instead of the session and its items.
    missed: Sequence[Frame] | None = None
    answers: Sequence[ResumedAnswer] = ()
    transcribing: Sequence[Transcribe] = ()


class Connection:
    def __init__(
        self, socket: WebSocket, commands: Commands, teller: Teller, outbox: Outbox, settings: RealtimeSettings
    ) -> None:
        self._socket, self._commands, self._teller, self._outbox = socket, commands, teller, outbox
        self._settings = settings
        # Running responses by id, and all tasks of this connection but the three that end it.
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dismissed: asyncio.Future[Closing | None] = asyncio.get_running_loop().create_future()
        self._answering: Answering
        self._transcribing: Transcribing
        self._ahead: Ahead
        # None where sessions are not kept.
        self.keeping: Keeping | None = None

    async def run(self, parts: Parts, gate: TurnGate, beginning: Beginning) -> None:
        """Returns when the connection is closed and nothing runs for it any more."""
        self._answering, self._transcribing, self._ahead = parts.answering, parts.transcribing, parts.ahead
        if self.keeping is not None:
            self.spawn(self.keeping.run(), "session keeping")
        self._begin(beginning)
        self.spawn(parts.transcribing.run(), "transcriptions")
        writer = asyncio.create_task(self._write(), name="realtime writer")
        reader, expiry = asyncio.create_task(self._read()), asyncio.create_task(self._expire(gate))
        ending: list[asyncio.Future[Closing | None]] = [reader, expiry, self._dismissed, writer]
        try:
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
            closing = next(end for end in ending if end.done()).result()
            await self._stop([reader, expiry, *self._tasks])
            await self._close(closing, writer)
        finally:
            await self._stop([*ending, *self._tasks])

    def perform(self, outcomes: Outcomes) -> None:
        """Tells events in their order and carries effects out."""
        for outcome in outcomes:
            match outcome:
                case StartAnswer():
                    self._start(outcome)
                case StopAnswer(response_id):
                    if response_id in self._answers:
                        self._answers[response_id].cancel()
                case ListenerStopped():
                    self._answering.playback.ends_at = None
                case Transcribe():
                    if self.keeping is not None:
                        self.keeping.note(outcome)
                    self._transcribing.ask(outcome)
                case AnswerComing() | AnswerForeseen() | NothingForeseen():
                    self._ahead.carry_out(outcome)
                case _:
                    self._push(self._teller.tell(outcome), outcome)

    def _begin(self, beginning: Beginning) -> None:
        session = self._answering.session
        if beginning.missed is None:
            self._push(self._teller.created())
            if beginning.tells_items:
                self._tell_items(session.items)
            return self.perform(session.beginning())
        for frame in beginning.missed:
            self._outbox.push(frame)
        # What a client had sent and not committed is gone: he is told so, and that from here on everything is new.
        self.perform([BufferCleared()])
        for resumed in beginning.answers:
            self._keep_answering(resumed.response.id, self._answering.go_on(resumed, FirstPacketClock()))
        for wanted in beginning.transcribing:
            self._transcribing.ask(wanted)
        return None if beginning.answers else self.perform(session.beginning())

    def _push(self, frame: Frame, event: Event | None = None) -> None:
        self._outbox.push(frame)
        if self.keeping is not None:
            self.keeping.told(event, frame)

    async def _may_send(self, frame: Frame) -> bool:
        return self.keeping is None or not frame.number or await self.keeping.kept(frame.number)

    def _tell_items(self, items: Iterable[Item]) -> None:
        previous_id: str | None = None
        for item in items:
            for event in (ItemAdded(item, previous_id), ItemDone(item, previous_id)):
                self._push(self._teller.tell(event))
            previous_id = item.id

    def dismiss(self, error: AntiphonError) -> None:
        """Its client may not have a session any more."""
        if not self._dismissed.done():
            told = envelope_of(error).error
            self._dismissed.set_result(Closing(1008, told.message, told.code or told.type))

    def _start(self, start: StartAnswer) -> None:
        response_id, held = start.response.id, self._ahead.take(start)
        task = self._keep_answering(response_id, self._answering.run(start, FirstPacketClock(), held))
        if held is not None:
            task.add_done_callback(lambda _: held.release())

    def _keep_answering(self, response_id: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        def forget(task: asyncio.Task[None]) -> None:
            if self._answers.get(response_id) is task:
                del self._answers[response_id]

        task = self._answers[response_id] = self.spawn(work, f"realtime {response_id}")
        task.add_done_callback(forget)
        return task

    async def _read(self) -> Closing | None:
        """Until the client goes, or says nothing for too long."""
        while True:
            try:
                async with asyncio.timeout(self._settings.idle_seconds):
                    message = await self._socket.receive()
            except TimeoutError:
                return _IDLE
            if message["type"] == "websocket.disconnect":
                return None
            text = message.get("text")
            frame = text.encode(errors="surrogatepass") if text is not None else message.get("bytes") or b""
            try:
                await self._follow(frame)
            except Exception as error:
                log_defect(error)
                return _DEFECT
            await self._outbox.room()

    async def _follow(self, frame: bytes) -> None:
        event: AnyEvent | None = None
        try:
            event = await self._event(frame)
            async for outcomes in self._commands.follow(event):
                self.perform(outcomes)
                await self._outbox.room()
        except AntiphonError as error:
            if status_of(error) >= 500:
                log_defect(error)
            event_id = event.event_id if event else await asyncio.to_thread(event_id_of, frame)
            self._push(self._teller.error(envelope_of(error).error, event_id))

    async def _event(self, frame: bytes) -> AnyEvent:
        if len(frame) <= _INLINE_BYTES:
            return read_event(frame, self._settings)
        return await asyncio.to_thread(read_event, frame, self._settings)

    async def _write(self) -> Closing | None:
        try:
            await self._outbox.write(self._socket.send_text, self._may_send)
        except ClientStalledError:
            return _STALLED
        except (OSError, RuntimeError, WebSocketDisconnect):  # how a closed socket tells a sender
            pass
        return None

    async def _expire(self, gate: TurnGate) -> Closing | None:
        """When its time is over; or the server stops, and nothing is being answered any more."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._settings.session_seconds
        while loop.time() < ends_at:
            if gate.is_closed and not self._answers:
                return _STOPPING
            if gate.cut.is_set():
                return _CUT
            await asyncio.sleep(_LOOK_SECONDS)
        return _EXPIRED

    async def _close(self, closing: Closing | None, writer: asyncio.Task[Closing | None]) -> None:
        if closing is not None and closing.error_code is not None:
            error = ErrorBody(message=closing.reason, type="invalid_request_error", param=None, code=closing.error_code)
            if closing.error_code == TAKEN_OVER:
                self._outbox.push(self._teller.last_word(error))
            else:
                self._push(self._teller.error(error, None))
        if self.keeping is not None:
            await self.keeping.finish()
        if closing is None:
            return
        flushed = asyncio.ensure_future(self._outbox.flushed())
        await asyncio.wait([flushed, writer], timeout=_FLUSH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await self._stop([flushed, writer])
        may_come_back = closing in (_STOPPING, _CUT) and self.keeping is not None and self.keeping.can_go_on_elsewhere
        reason = closing.reason + (_ADVICE if may_come_back else "")
        with suppress(OSError, RuntimeError):
            await self._socket.close(closing.code, reason[:_REASON_CHARACTERS])

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """For as long as the connection lasts."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
