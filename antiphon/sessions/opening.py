"""Everything that sessions keep, in Redis or in this process."""

from dataclasses import dataclass

from antiphon.sessions.conversation_store import ConversationStore, MemoryConversationStore
from antiphon.sessions.event_log import EventLog, MemoryEventLog
from antiphon.sessions.media_store import MediaStore, MemoryMediaStore
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.transcripts import MemoryTranscripts, Transcripts
from antiphon.sessions.turn_journal import MemoryTurnJournal, TurnJournal


@dataclass(frozen=True, slots=True)
class Sessions:
    conversations: ConversationStore
    media: MediaStore
    journal: TurnJournal
    events: EventLog
    transcripts: Transcripts


def sessions_in_memory(settings: SessionSettings) -> Sessions:
    return Sessions(
        conversations=MemoryConversationStore(settings),
        media=MemoryMediaStore(settings),
        journal=MemoryTurnJournal(settings),
        events=MemoryEventLog(settings),
        transcripts=MemoryTranscripts(settings),
    )
