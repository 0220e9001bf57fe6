"""How long a step has been waiting for others."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class WaitingTime:
    """In all layers of a step. Time in which several of its threads wait, or one does so twice, counts once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._changed = clock, threading.Lock()
        self._waiting, self._since, self._before = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        with self._changed:
            return self._before + (self._clock() - self._since if self._waiting else 0.0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """For as long as the block lasts."""
        with self._changed:
            if not self._waiting:
                self._since = self._clock()
            self._waiting += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                if not self._waiting:
                    self._before += self._clock() - self._since
