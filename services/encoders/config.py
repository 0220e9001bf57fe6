"""Every knob and bound of the encoders, from ANTIPHON_ENCODERS_ variables; units are in the names."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from antiphon.model.placement import DeviceName, TypeName


class EncodersSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_ENCODERS_", frozen=True, extra="ignore")

    checkpoint: Path
    device: DeviceName = "auto"
    dtype: TypeName = "auto"

    # One request.
    request_items: int = Field(64, gt=0)
    item_bytes: int = Field(48 << 20, gt=0)
    request_bytes: int = Field(64 << 20, gt=0)
    # Placeholder tokens of all its media; more than the Thinker's context can hold is no use.
    request_tokens: int = Field(65_536, gt=0)

    # One medium. A file of few bytes may unfold to any size, so these are checked while it is read.
    audio_seconds: float = Field(600.0, gt=0)
    audio_channels: int = Field(16, gt=0)
    image_pixels: int = Field(40_000_000, gt=0)
    video_seconds: float = Field(600.0, gt=0)
    video_frame_pixels: int = Field(10_000_000, gt=0)
    # Frames in the file, and frames taken from it.
    video_source_frames: int = Field(40_000, gt=0)
    video_frames: int = Field(768, gt=0)
    video_reading_seconds: float = Field(60.0, gt=0)
    video_fps: float = Field(2.0, gt=0)
    video_fps_most: float = Field(30.0, gt=0)

    # All requests together, and the bytes of media that they may hold.
    requests: int = Field(128, gt=0)
    held_bytes: int = Field(512 << 20, gt=0)
    # Threads that read media (decode, resample, resize); each reads one medium at a time.
    reader_threads: int = Field(2, gt=0)
    # One piece of work for a model: windows of 8 s, or patches of one size; and pieces computed together.
    audio_windows_per_job: int = Field(4, gt=0)
    patches_per_job: int = Field(8_192, gt=0)
    jobs_per_batch: int = Field(4, gt=0)
    # A batch that takes longer never ends: its requests go on elsewhere, and this service answers no more.
    longest_step_seconds: float = Field(120.0, gt=0)
    # Windows in steps of fixed shape, which a GPU replays as CUDA graphs. Unset, on a GPU. And windows in the largest
    # of those steps: more go through it in turn.
    fixed_steps: bool | None = None
    windows_per_fixed_step: int = Field(8, gt=0)
    # Rows of media kept for requests that send the same again; 0 keeps none.
    cache_bytes: int = Field(256 << 20, ge=0)
    # Rows travel in messages of about this size.
    message_bytes: int = Field(4 << 20, gt=0, le=48 << 20)
