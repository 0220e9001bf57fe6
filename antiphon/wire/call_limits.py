"""How long and how often a stage is called for one answer, from ANTIPHON_CALL_ variables; units are in the names."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CallLimits(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANTIPHON_CALL_", frozen=True, extra="ignore")

    # Of a call that names no time of its own.
    timeout_seconds: float = Field(600.0, gt=0)
    # In a row, without an answer; and moves of one call in all.
    attempts: int = Field(3, gt=0)
    moves: int = Field(8, ge=0)
    # Replicas that broke while they worked on it: it may be why.
    breaks: int = Field(1, ge=0)
    # Before an address is tried again: at random up to so long for each attempt before, and at most the other time.
    retry_pause_seconds: float = Field(0.4, ge=0)
    longest_pause_seconds: float = Field(5.0, ge=0)
    # Requests kept for another attempt; bulk beyond it is made again by whoever can.
    max_replay_bytes: int = Field(8 << 20, gt=0)
    # An address that is not reached in this time is passed over.
    connect_seconds: float = Field(0.5, gt=0)
    # A stage that owes an answer and is silent for so long is asked whether it lives; it has the other time to say so.
    stall_seconds: float = Field(0.2, gt=0)
    alive_seconds: float = Field(0.4, gt=0)
    # An address that failed is asked so often whether it serves again, and after the other time no more: whoever is
    # sent there then will see.
    recovery_seconds: float = Field(0.5, gt=0)
    forget_seconds: float = Field(60.0, gt=0)
