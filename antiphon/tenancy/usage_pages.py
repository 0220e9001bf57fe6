"""All records of a time, page by page, and their sums in buckets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from antiphon.tenancy.usage_log import UsageLog, UsageRecord

_PAGE_RECORDS: Final = 1000

BucketWidth = Literal["1m", "1h", "1d"]
WIDTH_SECONDS: Final[dict[BucketWidth, int]] = {"1m": 60, "1h": 3600, "1d": 86_400}
GroupBy = Literal["tenant", "key_id", "model", "endpoint"]


async def every_record(log: UsageLog, tenant: str, since: float, until: float) -> AsyncIterator[UsageRecord]:
    """Each once, in the order of finishing, however many finished in one moment. Between pages others get on."""
    seen: set[str] = set()
    count = _PAGE_RECORDS
    while True:
        page = await log.read(tenant, since, until, count)
        for record in page:
            if record.id not in seen:
                yield record
        if len(page) < count:
            return
        await asyncio.sleep(0)
        last = page[-1].finished_at
        # A moment that fills a whole page is read again, with more room.
        count = count * 2 if page[0].finished_at == last else _PAGE_RECORDS
        known = seen if last == since else set[str]()
        seen = known | {record.id for record in page if record.finished_at == last}
        since = last


@dataclass(slots=True)
class UsageSum:
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_audio_tokens: int = 0
    completion_tokens: int = 0
    completion_audio_tokens: int = 0
    audio_in_ms: int = 0
    audio_out_ms: int = 0

    def add(self, record: UsageRecord) -> None:
        self.requests += record.requests
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.prompt_audio_tokens += record.prompt_audio_tokens
        self.completion_tokens += record.completion_tokens
        self.completion_audio_tokens += record.completion_audio_tokens
        self.audio_in_ms += record.audio_in_ms
        self.audio_out_ms += record.audio_out_ms


@dataclass(slots=True)
class UsageBucket:
    start: int
    end: int
    # By the values of what it is grouped by.
    sums: dict[tuple[str, ...], UsageSum] = field(default_factory=dict)


class Buckets:
    """Of equal width from `since` on; a last one may be cut short by `until`."""

    def __init__(self, since: int, until: int, width: BucketWidth, group_by: Sequence[GroupBy]) -> None:
        step = WIDTH_SECONDS[width]
        self._since, self._step, self._group_by = since, step, group_by
        self.buckets = [UsageBucket(start, min(start + step, until)) for start in range(since, until, step)]

    def add(self, record: UsageRecord) -> None:
        sums = self.buckets[int((record.finished_at - self._since) // self._step)].sums
        group = tuple(str(getattr(record, name)) for name in self._group_by)
        sums.setdefault(group, UsageSum()).add(record)
