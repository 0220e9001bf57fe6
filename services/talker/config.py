"""Every knob of the Talker, from ANTIPHON_TALKER_ variables; units are in the names."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from antiphon.model.placement import DeviceName, TypeName


class TalkerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_TALKER_", frozen=True, extra="ignore")

    checkpoint: Path
    device: DeviceName = "auto"
    # Of weights and of the key/value store.
    dtype: TypeName = "auto"

    # The key/value store, shared by all requests: rows of prompts and of frames.
    cache_rows: int = Field(65_536, gt=0)
    page_rows: int = Field(16, gt=0)
    # A prompt and its frames; unset takes what the checkpoint allows.
    context_rows: int | None = Field(None, gt=0)

    # One step of the model: prompt rows and frames together.
    rows_per_step: int = Field(512, gt=0)
    running_requests: int = Field(128, gt=0)
    waiting_requests: int = Field(256, gt=0)
    # Hidden rows of media that all requests together may hold until they have been spoken.
    media_rows: int = Field(262_144, gt=0)
    # Frames that may wait for a slow reader before its request pauses.
    untaken_frames: int = Field(64, gt=0)
