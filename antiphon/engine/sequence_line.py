"""The way from a reader to its sequence in the decoder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from antiphon.engine.sequence import RequestT, Sequence, Timings


@dataclass(frozen=True, slots=True)
class SequenceLine(Generic[RequestT]):
    """Counters of a sequence that its reader writes: the scheduler sees them when it next looks, which `wake` makes it
    do. Each has one writer, so they need no lock."""

    sequence: Sequence[RequestT]
    wake: Callable[[], None]
    cancel_sequence: Callable[[Sequence[RequestT]], None]

    def extend(self, available_rows: int) -> None:
        had_all = self.sequence.can_sample
        self.sequence.available_rows = max(self.sequence.available_rows, available_rows)
        if not had_all:
            self.sequence.clock.complete = time.perf_counter()
        self.wake()

    def take(self) -> None:
        """Counts first and looks then: while it counts, the thread may fill the sequence up and go to sleep over it."""
        self.sequence.taken += 1
        if self.sequence.emitted - self.sequence.taken == self.sequence.max_untaken - 1:
            self.wake()

    def cancel(self) -> None:
        self.cancel_sequence(self.sequence)

    def timings(self) -> Timings:
        return self.sequence.clock.timings(time.perf_counter())

    def cached_rows(self) -> int:
        return self.sequence.cached_rows
