"""Who may come and what protects the keys, from ANTIPHON_ variables; units are in the names."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class TenancySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_", frozen=True, extra="ignore", hide_input_in_errors=True)

    # Nobody is let in without a key, also while there is none yet.
    require_keys: bool = False
    # Keys are kept as digests under it, and salts of caches are made with it: the same in every gateway, and never
    # changed, since all keys would be lost with it.
    key_pepper: SecretStr = SecretStr("")
    # Stands in the keys that are made here: antiphon-<environment>-...
    key_environment: str = Field("live", pattern=r"^[A-Za-z0-9]{1,16}$")
    # For so long a gateway goes on trusting what it read about a key; revoking takes that long.
    key_cache_seconds: float = Field(1.0, ge=0, le=60)
    key_cache_count: int = Field(10_000, gt=0)
    # The places of a gateway that died are free after this.
    place_lease_seconds: float = Field(30.0, gt=0)
    # How long an answer's end waits for its bill to be taken, while the account's storage is slow.
    settling_seconds: float = Field(0.25, gt=0)
    # Whoever is not among the first so many is "other" in metrics.
    named_tenants: int = Field(50, ge=0, le=1000)
    # Usage records: how long they are kept (export them before), and how many may wait while their log is away.
    usage_retention_days: float = Field(35.0, gt=0)
    usage_unsent_records: int = Field(10_000, gt=0)
    # Of one question about usage; each takes some ten microseconds.
    usage_read_records: int = Field(100_000, gt=0)
    # Answers to requests with an Idempotency-Key.
    idempotency_seconds: float = Field(24 * 3600.0, gt=0)
    idempotent_answer_bytes: int = Field(8 << 20, gt=0)
    # Of one tenant together; an answer that does not fit any more is made again.
    idempotency_tenant_bytes: int = Field(64 << 20, gt=0)
