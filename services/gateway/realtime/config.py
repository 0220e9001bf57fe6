"""Every knob and bound of live sessions, from ANTIPHON_REALTIME_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.gateway.realtime.core.configuration import SessionLimits


class RealtimeSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_REALTIME_", frozen=True, extra="ignore")

    # All sessions of this gateway.
    concurrent_sessions: int = Field(256, gt=0)
    # One session.
    session_seconds: float = Field(3600.0, gt=0)
    # Without a frame from the client.
    idle_seconds: float = Field(900.0, gt=0)
    # A frame of a client: 15 MiB of sound are 20 MiB of base64.
    frame_bytes: int = Field(21 << 20, gt=0)
    # Commas and opening brackets of a frame: what its JSON unfolds to.
    frame_values: int = Field(200_000, gt=0)
    append_bytes: int = Field(15 << 20, gt=0)
    # A frame to a client: some close at a larger one.
    sent_frame_bytes: int = Field(1 << 20, gt=0)
    # Sent, but not yet taken by the client's connection: what comes in waits until there is room again.
    unsent_bytes: int = Field(2 << 20, gt=0)
    unread_seconds: float = Field(60.0, gt=0)

    # What it keeps.
    buffer_seconds: float = Field(330.0, gt=0)
    quiet_seconds: float = Field(30.0, gt=0)
    least_commit_ms: float = Field(100.0, gt=0)
    items: int = Field(1024, gt=0)
    item_bytes: int = Field(48 << 20, gt=0)
    side_responses: int = Field(4, gt=0)
    instruction_characters: int = Field(100_000, gt=0)
    tools: int = Field(128, gt=0)

    # Sound is handed out at most so far ahead of a listener who plays it as it comes.
    ahead_seconds: float = Field(10.0, gt=0)
    # The oldest turns are left out of a prompt whose sound is longer than this or has more pieces.
    prompt_sound_seconds: float = Field(300.0, gt=0)
    prompt_media: int = Field(32, gt=0)
    transcription_instruction: str = "Transcribe the audio."
    transcription_tokens: int = Field(1024, gt=0)
    # That wait for each other in one session; one more is told as failed.
    transcriptions: int = Field(8, gt=0)

    # Before it is asked: the next prompt is computed as far as it is known; and when a user has been silent for
    # `trailing_silence_ms`, which is what his turn keeps of the silence that ends it, his answer is begun and held for
    # at most so long, while less than this share of the gateway's turns is open.
    prepares: bool = True
    speculates: bool = True
    trailing_silence_ms: int = Field(192, ge=0)
    held_turn_seconds: float = Field(5.0, gt=0)
    speculative_load: float = Field(0.5, ge=0, le=1)

    # So that it goes on at another gateway. None: where sessions are kept in Redis.
    keeps_sessions: bool | None = None
    # An event waits so long to be kept before it is sent all the same.
    keep_patience_seconds: float = Field(0.05, gt=0)

    # Client secrets.
    secret_seconds: int = Field(600, ge=10, le=7200)
    # Of the session that is set up with it.
    secret_session_bytes: int = Field(1 << 18, gt=0)

    @property
    def session_limits(self) -> SessionLimits:
        return SessionLimits(
            buffer_seconds=self.buffer_seconds,
            quiet_seconds=self.quiet_seconds,
            least_commit_ms=self.least_commit_ms,
            items=self.items,
            item_bytes=self.item_bytes,
            side_responses=self.side_responses,
            tells_beginnings=self.prepares,
        )
