"""Whose step may begin on the cores that all stages of a process share.

While a first output is computed that others would drown, steps of theirs begin only on cores that are left, beside one
for all that is no step. Each waits for those first outputs only that were under way when it came, and not for long, and
speech that is about to end waits for none, so nobody starves. With one tenant nobody waits.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Final, Literal, Protocol, TypeVar

import torch

from antiphon.engine.fairness import Presence
from antiphon.engine.sequence import RequestT, Share, Slice
from antiphon.engine.urgency import is_ending

ResultT = TypeVar("ResultT")
# first: a first output of an outnumbered tenant. ending: a listener hears silence unless it begins at once.
Urgency = Literal["first", "ending", "ordinary"]
# Others stand back for a first output to be early. One that takes longer is late in any case; it may be a whole film in
# an encoder, or hang, and must not take the others with it.
_MOST_WAIT_SECONDS: Final = 1.0


class Gate(Protocol):
    def arrive(self, stage: str, share: Share) -> None:
        """A sequence, waiting or running."""
        ...

    def depart(self, stage: str, share: Share) -> None: ...

    def is_outnumbered(self, share: Share | None) -> bool:
        """Among the sequences of any stage of the process. None: of somebody, and he is not alone here."""
        ...

    def step(self, urgency: Urgency) -> AbstractContextManager[None]:
        """Entered when the step may begin; left when it has been computed."""
        ...


class OpenGate:
    """For a device with an order of its own: everybody begins at once."""

    def arrive(self, stage: str, share: Share) -> None:  # noqa: ARG002
        return

    def depart(self, stage: str, share: Share) -> None:  # noqa: ARG002
        return

    def is_outnumbered(self, share: Share | None) -> bool:  # noqa: ARG002
        return False

    def step(self, urgency: Urgency) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()


class ComputeGate:
    def __init__(self, most_beside_first: int, most_wait_seconds: float = _MOST_WAIT_SECONDS) -> None:
        """most_beside_first: steps under way at once, first outputs included, for another to begin beside those.
        most_wait_seconds: from the beginning of a first output on, until nobody waits for it any more."""
        self._most, self._most_wait_seconds = most_beside_first, most_wait_seconds
        # By stage: a turn that begins is in several at once.
        self._present: defaultdict[str, Presence] = defaultdict(Presence)
        # Under way: all, and of these the first outputs by the number of their entry, each with its beginning.
        self._under_way = 0
        self._firsts: dict[int, float] = {}
        self._entries = 0
        self._changed = threading.Condition()

    def arrive(self, stage: str, share: Share) -> None:
        with self._changed:
            self._present[stage].arrive(share)

    def depart(self, stage: str, share: Share) -> None:
        with self._changed:
            self._present[stage].depart(share)

    def is_outnumbered(self, share: Share | None) -> bool:
        with self._changed:
            stages = self._present.values()
            return any(len(each) > 1 if share is None else each.is_outnumbered(share) for each in stages)

    @contextmanager
    def step(self, urgency: Urgency) -> Iterator[None]:
        number = self._enter(urgency)
        try:
            yield
        finally:
            self._leave(number)

    def _enter(self, urgency: Urgency) -> int:
        with self._changed:
            if urgency == "ordinary":
                self._stand_back(time.monotonic())
            self._entries += 1
            self._under_way += 1
            if urgency == "first":
                self._firsts[self._entries] = time.monotonic()
            return self._entries

    def _stand_back(self, now: float) -> None:
        """Under the lock, which others have while this waits."""
        until = {number: began + self._most_wait_seconds for number, began in self._firsts.items()}
        before = {number for number, latest in until.items() if latest > now}
        if before:
            self._changed.wait_for(
                lambda: self._under_way < self._most or before.isdisjoint(self._firsts),
                max(until[number] for number in before) - now,
            )

    def _leave(self, number: int) -> None:
        with self._changed:
            self._under_way -= 1
            self._firsts.pop(number, None)
            self._changed.notify_all()


def gate_of(device: torch.device) -> Gate:
    """On a CPU the one of this process, as its cores are."""
    return _gate_of_process() if device.type == "cpu" else OPEN


OPEN: Final = OpenGate()


@cache
def _gate_of_process() -> ComputeGate:
    return ComputeGate(most_beside_first=max(1, len(os.sched_getaffinity(0)) - 1))


def gated(
    gate: Gate, compute: Callable[[list[Slice[RequestT]]], ResultT]
) -> Callable[[list[Slice[RequestT]]], ResultT]:
    def step(plan: list[Slice[RequestT]]) -> ResultT:
        with gate.step(_urgency(gate, plan)):
            return compute(plan)

    return step


def _urgency(gate: Gate, plan: Sequence[Slice[RequestT]]) -> Urgency:
    sequences = [part.sequence for part in plan]
    if any(not each.emitted and gate.is_outnumbered(each.share) for each in sequences):
        return "first"
    return "ending" if any(map(is_ending, sequences)) else "ordinary"
