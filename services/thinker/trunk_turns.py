"""Two halves of a step take turns at the trunk: while one waits for experts elsewhere, the other computes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LANES: Final = 2


class TrunkTurns:
    """A lane is a half of a step, on a thread of its own."""

    def __init__(self) -> None:
        self._trunk = threading.Lock()
        self._mine = threading.local()

    @contextmanager
    def of(self, lane: int) -> Iterator[None]:
        """This thread computes the lane, from its first turn on."""
        with self._trunk:
            self._mine.lane = lane
            try:
                yield
            finally:
                del self._mine.lane

    @property
    def lane(self) -> int:
        """That of this thread; the first outside of any."""
        return getattr(self._mine, "lane", 0)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Meanwhile the trunk is the other lane's."""
        if not hasattr(self._mine, "lane"):
            yield
            return
        self._trunk.release()
        try:
            yield
        finally:
            self._trunk.acquire()
