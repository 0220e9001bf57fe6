"""Every knob of the Talker, from ANTIPHON_TALKER_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from antiphon.hosting.decoder_service import DecoderSettings


class TalkerSettings(DecoderSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_TALKER_", frozen=True, extra="ignore")

    # Frames that may wait for a slow reader before its request pauses.
    untaken_frames: int = Field(64, gt=0)
    # Speech that goes on long after its text has run away: 12.5 frames are a second, and a token takes some four.
    frames_per_token: int = Field(16, gt=0)
    # Never fewer than these, however short the text.
    least_frames: int = Field(150, gt=0)
