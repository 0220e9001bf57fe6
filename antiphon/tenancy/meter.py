"""Brings usage records to their log: nobody waits for it, and none is lost while the log is away for a while."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from antiphon.errors import AtCapacity, Unavailable
from antiphon.tenancy.usage_log import UsageLog, UsageRecord

_LOG = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 5.0
# Of a record that the log, which is there, does not take.
_TRIES: Final = 5


class Meter:
    """Records wait in order, bounded in number; each is sent until it was taken, so it may come twice.

    While the log is away all of them wait; one that the log refuses again and again holds no other back.
    """

    def __init__(self, log: UsageLog, unsent_records: int, count_lost: Callable[[], None] = lambda: None) -> None:
        """count_lost: called for each record that the operators' log alone has."""
        self._log, self._most, self._count_lost = log, unsent_records, count_lost
        self._waiting: deque[UsageRecord] = deque()
        self._sending: asyncio.Task[None] | None = None

    def record(self, record: UsageRecord) -> None:
        """One more than may wait is told to the operators' log, which then is the only place that has it."""
        if len(self._waiting) >= self._most:
            self._lose(record)
            return
        self._waiting.append(record)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="usage")

    async def flush(self, seconds: float) -> None:
        """Returns when everything has been taken, or after so long; what is left then goes to the operators' log."""
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=seconds)
            self._sending.cancel()
            await asyncio.wait({self._sending})
        while self._waiting:
            self._lose(self._waiting.popleft())

    async def _send_all(self) -> None:
        while self._waiting:
            is_taken = await self._send(self._waiting[0])
            record = self._waiting.popleft()
            if not is_taken:
                self._lose(record)

    async def _send(self, record: UsageRecord) -> bool:
        """Whether it was taken; waits for as long as nobody can be asked."""
        pause, tries = _FIRST_PAUSE_SECONDS, 0
        while True:
            try:
                await self._log.append(record)
            except (Unavailable, AtCapacity):
                pass
            except Exception as error:
                tries += 1
                if tries == _TRIES:
                    _LOG.exception("a usage record is refused: %s", type(error).__name__)
                    return False
            else:
                return True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _lose(self, record: UsageRecord) -> None:
        self._count_lost()
        _LOG.error("usage record could not be kept", extra={"usage": record.model_dump(mode="json")})
