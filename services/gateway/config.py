"""Every knob and bound of the gateway, from ANTIPHON_GATEWAY_ variables; units are in the names."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class GatewaySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_GATEWAY_", frozen=True, extra="ignore")

    # The checkpoint that the stages serve; the gateway reads its configuration, template and tokenizer only.
    checkpoint: Path
    # What clients write in `model`; unset takes the checkpoint's directory name ("antiphon-nano" for nano).
    model_id: str | None = None
    # Answered too, beside the directory name, which always is.
    model_aliases: tuple[str, ...] = ()
    # Unset: as its files and its name tell.
    checkpoint_kind: Literal["instruct", "thinking", "captioner"] | None = None
    # How the checkpoint is asked to write down, to translate into English and to read aloud ({text}); unset: as it was
    # trained, where that is known.
    transcription_instruction: str | None = None
    translation_instruction: str | None = None
    speech_instruction: str | None = None
    # Used when a request names none; a checkpoint without it uses the first of its own.
    default_voice: str = "ethan"

    # One request.
    body_bytes: int = Field(48 << 20, gt=0)
    body_seconds: float = Field(60.0, gt=0)
    # Commas and opening brackets: what JSON unfolds to. Text that has more would not fit into any context.
    body_values: int = Field(500_000, gt=0)
    message_count: int = Field(1024, gt=0)
    text_characters: int = Field(400_000, gt=0)
    # Of one JSON schema: of an answer, or of a tool's parameters.
    schema_characters: int = Field(65_536, gt=0)
    schema_depth: int = Field(32, gt=0, le=128)
    # All media of a request together, decoded from base64.
    media_bytes: int = Field(32 << 20, gt=0)
    media_count: int = Field(32, gt=0)
    media_seconds: float = Field(600.0, gt=0)
    # Written when a request sets no bound of its own.
    default_answer_tokens: int = Field(2048, gt=0)
    # 12.5 frames a second: five minutes.
    max_speech_frames: int = Field(3750, gt=0)
    turn_seconds: float = Field(600.0, gt=0)

    # All requests together.
    concurrent_turns: int = Field(128, gt=0)
    # Lets fewer in while listeners wait: for their first sound longer than this, or for `late_seconds` in silence.
    sheds_load: bool = True
    first_sound_seconds: float = Field(1.0, gt=0)
    late_seconds: float = Field(0.1, ge=0)
    held_body_bytes: int = Field(512 << 20, gt=0)
    retry_after_seconds: float = Field(1.0, gt=0, le=120)

    # Streams.
    event_queue_items: int = Field(64, gt=0)
    keep_alive_seconds: float = Field(15.0, gt=0)
    # Whether streamed answers can be gone on with. Unset: where sessions are in Redis, so that any gateway can.
    journals_answers: bool | None = None
    # An answer's first event waits no longer for its journal.
    journal_patience_seconds: float = Field(0.05, ge=0)

    # Hosts (exact names, or name:port) that media may be fetched from; none by default.
    remote_media_hosts: frozenset[str] = frozenset()
    remote_media_seconds: float = Field(10.0, gt=0)
