"""Every knob of the keeper of the placement, from ANTIPHON_EXPERTS_KEEPER_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class KeeperSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="ANTIPHON_EXPERTS_KEEPER_", frozen=True, extra="ignore", populate_by_name=True
    )

    # host:port[,host:port...] of all shards, this one included; a name that stands for several hosts is all of them.
    # Empty: nobody keeps the placement, and each shard holds what it began with. On Ray Serve they are found without.
    addresses: str = Field("", validation_alias="ANTIPHON_DIRECTORY_EXPERTS")

    # Of each expert, as far as there is room.
    least_copies: int = Field(1, gt=0)
    # Copies beyond one of each, as a share of the experts. Unset: as many as fit.
    redundancy: float | None = Field(None, ge=0)
    # Room that each shard keeps, so that experts can be loaded before others are given up.
    spare_experts: int = Field(1, ge=0)
    # A layer is changed when its busiest shard has more than so many times the mean to do, and then until it has less
    # than so many.
    keep_below: float = Field(1.15, gt=1)
    aim: float = Field(1.05, ge=1)

    # Experts that one shard loads at a time.
    loads_at_once: int = Field(8, gt=0)
    # What is ready for so long has been seen by all trunks: twice as long as they take to look again.
    settle_seconds: float = Field(3.0, ge=0)

    look_every_seconds: float = Field(1.0, gt=0)
    # A keeper that another one has outbid claims nothing for so long, half as long or half as long again, by chance.
    yield_seconds: float = Field(5.0, ge=0)
    # What was asked of experts is considered so often; lost and new shards at once.
    plan_every_seconds: float = Field(15.0, gt=0)
    # For an answer to one question; a shard that is silent, not gone, is waited for a while before it is replaced.
    answer_seconds: float = Field(2.0, gt=0)
    silence_seconds: float = Field(5.0, ge=0)
    # A shard that leaves waits for others to take over what it holds, unless it has found none who stay for so long.
    alone_seconds: float = Field(3.0, ge=0)
    # Of each expert on the average; less traffic changes nothing.
    least_pairs: float = Field(32.0, ge=0)
    # Of what was asked: older than this it counts half.
    routing_half_life_seconds: float = Field(60.0, gt=0)
