"""Whatever is asked of the form in this process and of the one in Redis, both answer alike."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import AntiphonError
from antiphon.sessions.conversation import Message, TextPart
from antiphon.sessions.event_log import LoggedEvent
from antiphon.sessions.opening import Sessions, open_sessions
from antiphon.sessions.progress import Progress
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import TurnWriter
from antiphon.storage.connection import open_redis
from tests.redis_server import RedisServer
from tests.sessions.conversations import conversation, frames

TIGHT = SessionSettings(
    conversation_items=6,
    conversation_bytes=1600,
    conversation_count=2,
    medium_bytes=20,
    media_bytes=30,
    turn_progress_bytes=60,
    event_count=3,
    event_bytes=24,
    event_sound_bytes=7,
    transcript_count=2,
)
TENANTS = st.sampled_from(["acme", "acme", "evil"])
IDS = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 6)


@pytest.mark.parametrize(
    "operations",
    [
        ("create", "load", "save", "delete"),
        ("put", "get", "touch"),
        ("begin", "read", "append", "append", "take over", "finish"),
        ("log", "log", "tell", "create", "after"),
        ("keep", "find"),
    ],
    ids=["conversations", "media", "journal", "events", "transcripts"],
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_both_forms_answer_alike(redis_server: RedisServer, operations: Sequence[str], data: st.DataObject) -> None:
    redis_server.ask("FLUSHALL")
    step = st.tuples(st.sampled_from(operations), TENANTS, IDS, NUMBERS)
    steps = data.draw(st.lists(step, min_size=10, max_size=40))

    async def run() -> None:
        async with open_redis(redis_server.url) as storage:
            memory, redis = _Form(open_sessions(None, TIGHT)), _Form(open_sessions(storage, TIGHT))
            for step in steps:
                assert await memory.outcome(step) == await redis.outcome(step), step

    asyncio.run(run())


class _Form:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        # The latest of each tenant and id, and the one before, who was fenced out.
        self._writers: dict[tuple[str, str], list[TurnWriter]] = {}
        self._hashes: list[str] = ["none"]

    async def outcome(self, step: tuple[str, str, str, int]) -> object:
        try:
            return await self._do(*step)
        except AntiphonError as error:
            return type(error), error.message, error.code

    def _do(self, operation: str, tenant: str, name: str, number: int) -> Awaitable[object]:
        of_area = (self._converse, self._show, self._journal, self._log)
        return next(done for done in (area(operation, tenant, name, number) for area in of_area) if done is not None)

    def _converse(self, operation: str, tenant: str, name: str, number: int) -> Awaitable[object] | None:
        store = self._sessions.conversations
        items = (Message("i", "user", (TextPart("x" * 200),)),) * number
        kept = replace(conversation(name), items=items)
        match operation:
            case "create":
                return store.create(tenant, kept)
            case "load":
                return store.load(tenant, name)
            case "save":
                return store.save(tenant, kept, expected_version=number)
            case "delete":
                return store.delete(tenant, name)
        return None

    def _show(self, operation: str, tenant: str, name: str, number: int) -> Awaitable[object] | None:
        match operation:
            case "put":
                return self._put(tenant, name.encode() * number * 4)
            case "get":
                return self._sessions.media.get(tenant, self._hashes[number % len(self._hashes)])
            case "touch":
                return self._sessions.media.touch(tenant, self._hashes)
            case "keep":
                return self._keep(tenant, name, str(number))
            case "find":
                return self._sessions.transcripts.find(tenant, name)
        return None

    def _journal(self, operation: str, tenant: str, name: str, number: int) -> Awaitable[object] | None:
        writers = self._writers.get((tenant, name), [])
        match operation:
            case "begin" | "take over":
                return self._open(operation, tenant, name)
            case "read":
                return self._sessions.journal.read(tenant, name)
            case "append" | "finish" if not writers:
                return asyncio.sleep(0)
            case "append":
                return writers[number % len(writers)].append(Progress(np.array([number], np.int32), frames(number % 2)))
            case "finish":
                return writers[number % len(writers)].finish()
        return None

    def _log(self, operation: str, tenant: str, name: str, number: int) -> Awaitable[object] | None:
        events = self._sessions.events
        if operation == "after":
            return events.after(tenant, name, number, 2)
        told = conversation(name) if operation == "tell" else None
        logged = (LoggedEvent(n, name.encode() * number * 2, b"s" * (n % 5)) for n in range(number, number + 3))
        return events.keep(tenant, name, number % 3, [*logged], told)

    async def _put(self, tenant: str, data: bytes) -> str:
        content_hash = await self._sessions.media.put(tenant, data)
        self._hashes.append(content_hash)
        return content_hash

    async def _keep(self, tenant: str, name: str, transcript: str) -> None:
        """When it expires both tell by their own clocks. Which of two is older must be told apart by one of ms."""
        await self._sessions.transcripts.keep(tenant, name, transcript)
        await asyncio.sleep(0.002)

    async def _open(self, operation: str, tenant: str, name: str) -> object:
        journal, turn = self._sessions.journal, None
        if operation == "begin":
            writer = await journal.begin(tenant, name, b"asked")
        else:
            turn, writer = await journal.take_over(tenant, name)
        self._writers.setdefault((tenant, name), []).append(writer)
        return turn
