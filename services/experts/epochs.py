"""Epochs: of two keepers the one with the greater is obeyed, and no two ever have the same."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

_OWNER_BITS: Final = 32


def next_epoch(known: Iterable[int], shard_id: str) -> int:
    """Greater than all that are known: how many there were before, and whose it is."""
    before = max(known, default=0) >> _OWNER_BITS
    owner = int.from_bytes(blake2b(shard_id.encode(), digest_size=_OWNER_BITS // 8).digest(), "big")
    return (before + 1) << _OWNER_BITS | owner
