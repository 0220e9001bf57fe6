"""Where state that outlives a process is kept, and how long to wait for it, from ANTIPHON_REDIS_ variables."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class StorageSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="ANTIPHON_REDIS_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    # Unset keeps everything in the memory of this process: one gateway, nothing survives it.
    url: SecretStr | None = None
    # To one server; of a cluster, to each of its nodes.
    connections: int = Field(32, gt=0)
    connect_seconds: float = Field(0.3, gt=0)
    # For one command with everything around it: waiting for a connection, connecting, and once more if it broke.
    answer_seconds: float = Field(0.7, gt=0)
    # Large values may take longer, by this rate.
    transfer_bytes_per_second: int = Field(16 << 20, gt=0)
