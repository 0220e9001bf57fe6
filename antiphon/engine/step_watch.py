"""Notices a step that does not end: a device that hangs raises nothing, and whoever waits for it would wait on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

GivenT = TypeVar("GivenT")
ResultT = TypeVar("ResultT")

# At one step, before it is given up: a process that was stopped for a while and goes on has been seen at it once.
_LOOKS: Final = 3
# At the end, for a thread that hangs.
HANGING_SECONDS: Final = 1.0


class StepWatch:
    """Steps are taken on one thread, and looked at on another."""

    def __init__(self, longest_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_seconds, self._clock = longest_seconds, clock
        self._began_seconds: float | None = None
        self._looks = 0

    @contextmanager
    def step(self) -> Iterator[None]:
        self._looks, self._began_seconds = 0, self._clock()
        try:
            yield
        finally:
            self._began_seconds = None

    def around(self, work: Callable[[GivenT], ResultT]) -> Callable[[GivenT], ResultT]:
        """The same, as a step."""

        def step(given: GivenT) -> ResultT:
            with self.step():
                return work(given)

        return step

    def hangs(self) -> bool:
        """To be asked every few seconds: whether the step under way has taken too long, at one look after another."""
        began = self._began_seconds
        if began is None:
            return False
        self._looks += 1
        return self._looks >= _LOOKS and self._clock() - began > self._longest_seconds

    def sentence(self, name: str) -> str:
        return f"The {name} has been at one step for more than {self._longest_seconds:g} s and takes no more work."
