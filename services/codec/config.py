"""Every knob of the codec, from ANTIPHON_CODEC_ variables; units are in the names."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from antiphon.model.code2wav_streams import PUSH_FRAMES
from antiphon.model.placement import DeviceName, TypeName


class CodecSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_CODEC_", frozen=True, extra="ignore")

    checkpoint: Path
    device: DeviceName = "auto"
    # bfloat16 halves the memory and adds noise that can be heard.
    dtype: TypeName = "float32"

    # Speeches decoded at the same time; each holds its own state.
    streams: int = Field(256, gt=0)
    # Frames of one speech decoded in one go when several wait; the first frame always goes alone.
    frames_per_push: int = Field(16, gt=0, le=PUSH_FRAMES)
    # Frames wait for others of their speech while its listener has more sound than this; it must cover a long push.
    lead_seconds: float = Field(0.5, ge=0.1)
    # Frames of all speeches decoded in one go. Unset: 16 on a CPU, where more gain nothing and hold up who is in a
    # hurry; 64 elsewhere, since a frame's activations take some 10 MB at the real size.
    frames_per_batch: int | None = Field(None, gt=0)
    # As many at most while several tenants are in the same process, where another's first frame may come next. Unset: 8
    # on a CPU, where each frame takes its time, and no fewer elsewhere.
    shared_frames_per_batch: int | None = Field(None, gt=0)
    # Pushes of usual sizes in steps of fixed shape, which a GPU replays as CUDA graphs. Unset, on a GPU.
    fixed_steps: bool | None = None
    # A push that takes longer never ends: its speeches go on elsewhere, and this service answers no more.
    longest_step_seconds: float = Field(30.0, gt=0)
    # Frames in one message, and frames of one speech that may wait for the decoder.
    frames_per_message: int = Field(512, gt=0)
    waiting_frames: int = Field(128, gt=0)
