"""What a policy looks at, and what it finds in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from antiphon.scaling.signals import Signals

SignalsT = TypeVar("SignalsT", bound=Signals)

# Of the running replicas: with fewer that tell something, nobody knows enough to do with less of them.
_TELLING_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Window(Generic[SignalsT]):
    """The latest seconds of one stage."""

    # Of any clock that only goes forward.
    at_seconds: float
    # Replicas that are wanted by now, and those that run.
    target: int
    running: int
    # Of those that tell something.
    replicas: Sequence[SignalsT]

    @property
    def is_complete(self) -> bool:
        return bool(self.replicas) and len(self.replicas) >= _TELLING_SHARE * self.running

    def total(self, signal: Callable[[SignalsT], float]) -> float:
        """Of all that run, of whom the silent are taken to be like the others."""
        told = sum(signal(replica) for replica in self.replicas)
        return told * max(self.running, len(self.replicas)) / len(self.replicas)

    def most(self, signal: Callable[[SignalsT], float]) -> float:
        return max(signal(replica) for replica in self.replicas)

    def mean(self, signal: Callable[[SignalsT], float]) -> float:
        return sum(signal(replica) for replica in self.replicas) / len(self.replicas)


@dataclass(frozen=True, slots=True)
class Demand:
    """In replicas, not rounded."""

    # For what comes and is under way; from here a forecast goes on.
    steady: float
    # More, until what has piled up is done, or nobody waits too long.
    relief: float
    # Never fewer, whatever the load.
    floor: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    replicas: int
    reason: str
