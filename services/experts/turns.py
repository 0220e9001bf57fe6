"""One computation at a time, in the order of arrival."""

import threading
import time
from collections import deque

from antiphon.errors import DeadlineExceeded


class Turns:
    """A lock whose waiters are let in one after the other. threading.Lock lets in whoever comes at the right moment."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, deadline: float) -> None:
        """deadline: a time of time.monotonic. Raises DeadlineExceeded when it comes first; otherwise `give` must
        follow."""
        place = self._join()
        if place is not None and not place.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            self._leave(place)
        elif time.monotonic() >= deadline:
            self.give()
        else:
            return
        raise DeadlineExceeded("Its time was over before the expert shard could begin.")

    def give(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def _join(self) -> "threading.Lock | None":
        """None if the turn is taken already."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return None
            place = threading.Lock()
            place.acquire()
            self._waiting.append(place)
            return place

    def _leave(self, place: threading.Lock) -> None:
        with self._mutex:
            if place in self._waiting:
                self._waiting.remove(place)
                return
        self.give()  # it came at the last moment
