"""Every knob of the Talker, from ANTIPHON_TALKER_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from antiphon.hosting.decoder_service import DecoderSettings


class TalkerSettings(DecoderSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_TALKER_", frozen=True, extra="ignore")

    # Frames that may wait for a slow reader before its request pauses.
    untaken_frames: int = Field(64, gt=0)
