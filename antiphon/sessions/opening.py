"""Everything that sessions keep, in Redis or in this process."""

from dataclasses import dataclass

from antiphon.sessions.conversation_store import ConversationStore, MemoryConversationStore
from antiphon.sessions.event_log import EventLog, MemoryEventLog
from antiphon.sessions.media_store import MediaStore, MemoryMediaStore
from antiphon.sessions.redis_conversation_store import RedisConversationStore
from antiphon.sessions.redis_event_log import RedisEventLog
from antiphon.sessions.redis_media_store import RedisMediaStore
from antiphon.sessions.redis_transcripts import RedisTranscripts
from antiphon.sessions.redis_turn_journal import RedisTurnJournal
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.transcripts import MemoryTranscripts, Transcripts
from antiphon.sessions.turn_journal import MemoryTurnJournal, TurnJournal
from antiphon.storage.connection import Storage


@dataclass(frozen=True, slots=True)
class Sessions:
    conversations: ConversationStore
    media: MediaStore
    journal: TurnJournal
    events: EventLog
    transcripts: Transcripts


def open_sessions(storage: Storage | None, settings: SessionSettings) -> Sessions:
    """In this process where there is no storage. The storage stays the caller's, who closes it."""
    return sessions_in_memory(settings) if storage is None else sessions_in_redis(storage, settings)


def sessions_in_redis(storage: Storage, settings: SessionSettings) -> Sessions:
    return Sessions(
        conversations=RedisConversationStore(storage, settings),
        media=RedisMediaStore(storage, settings),
        journal=RedisTurnJournal(storage, settings),
        events=RedisEventLog(storage, settings),
        transcripts=RedisTranscripts(storage, settings),
    )


def sessions_in_memory(settings: SessionSettings) -> Sessions:
    conversations = MemoryConversationStore(settings)
    return Sessions(
        conversations=conversations,
        media=MemoryMediaStore(settings),
        journal=MemoryTurnJournal(settings),
        events=MemoryEventLog(conversations, settings),
        transcripts=MemoryTranscripts(settings),
    )
