"""Brings usage records to their log: nobody waits for it, and none is lost while the log is away for a while."""

import asyncio
import logging
from collections import deque
from typing import Final

from antiphon.errors import AntiphonError
from antiphon.tenancy.usage_log import UsageLog, UsageRecord

_LOG = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Meter:
    """Records wait in order, bounded in number; each is sent until it was taken, so it may come twice."""

    def __init__(self, log: UsageLog, unsent_records: int) -> None:
        self._log, self._most = log, unsent_records
        self._waiting: deque[UsageRecord] = deque()
        self._sending: asyncio.Task[None] | None = None

    def record(self, record: UsageRecord) -> None:
        """One more than may wait is told to the operators' log, which then is the only place that has it."""
        if len(self._waiting) >= self._most:
            _LOG.error("usage record could not be kept", extra={"usage": record.model_dump(mode="json")})
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
        for record in self._waiting:
            _LOG.error("usage record could not be kept", extra={"usage": record.model_dump(mode="json")})
        self._waiting.clear()

    async def _send_all(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while self._waiting:
            try:
                await self._log.append(self._waiting[0])
            except AntiphonError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._waiting.popleft()
                pause = _FIRST_PAUSE_SECONDS
