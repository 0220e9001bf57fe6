"""Bounds and lifetimes of what sessions keep, from ANTIPHON_SESSIONS_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SessionSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_SESSIONS_", frozen=True, extra="ignore")

    # Conversations; each use begins their time anew.
    conversation_items: int = Field(1024, gt=0)
    conversation_bytes: int = Field(2 << 20, gt=0)
    conversation_configuration_bytes: int = Field(256 << 10, gt=0)
    conversation_seconds: float = Field(86_400.0, gt=0)
    # Of one tenant at once.
    conversation_count: int = Field(1000, gt=0)

    # Sounds and images of conversations, kept once however often they are spoken of.
    medium_bytes: int = Field(32 << 20, gt=0)
    # Of one tenant together.
    media_bytes: int = Field(512 << 20, gt=0)
    media_seconds: float = Field(3600.0, gt=0)

    # The turn under way, as far as it came.
    turn_record_bytes: int = Field(16 << 20, gt=0)
    # Ids and frames: five minutes of speech are 120 KB.
    turn_progress_bytes: int = Field(1 << 20, gt=0)
    # Of one tenant together, those that are over included until they are forgotten. An answer that there is no room
    # for is given all the same, but cannot go on elsewhere; one whose progress has no room goes on from what there is.
    turn_journal_bytes: int = Field(256 << 20, gt=0)
    turn_seconds: float = Field(900.0, gt=0)
    # How long ids and frames may wait to be written together.
    turn_write_seconds: float = Field(0.1, gt=0)

    # Events of one conversation that a client may have missed, their sound apart: the longest answer is some 7000
    # events of 300 bytes. Of sound twenty seconds: more than is under way to a client, or handed out ahead.
    event_count: int = Field(16_384, gt=0)
    event_bytes: int = Field(4 << 20, gt=0)
    event_sound_bytes: int = Field(1 << 20, gt=0)
    event_seconds: float = Field(600.0, gt=0)

    # Spoken answers that a later request may refer to by id; a tenant's oldest are forgotten first.
    transcript_seconds: float = Field(3600.0, gt=0)
    transcript_count: int = Field(10_000, gt=0)
