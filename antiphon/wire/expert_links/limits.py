"""Bounds of a link to an expert shard; units are in the names."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkLimits:
    # Of one call; memory for so many is set aside by the kernel as they are first used.
    rows: int = 4096
    pairs: int = 32_768
    # To reach the shard and be let in.
    open_seconds: float = 2.0
    # An answer through shared memory is awaited awake for so long before its thread sleeps.
    awake_seconds: float = 0.0
