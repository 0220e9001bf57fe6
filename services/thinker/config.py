"""Every knob of the Thinker, from ANTIPHON_THINKER_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from antiphon.hosting.decoder_service import DecoderSettings


class ThinkerSettings(DecoderSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_THINKER_", frozen=True, extra="ignore")

    # Tokens that may wait for a slow reader before its request pauses.
    untaken_tokens: int = Field(64, gt=0)
