"""What each request took, one unchangeable record each: the seam, the record, and its form in one process."""

from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

Outcome = Literal["completed", "cancelled", "failed"]


class UsageRecord(BaseModel):
    """Times are seconds since the epoch. Tokens are those that the model read and wrote, also where nobody waited for
    the end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Of the request; of two records with one id the second was sent again.
    id: str
    tenant: str
    key_id: str
    model: str
    # Such as "/v1/chat/completions".
    endpoint: str
    started_at: float
    first_packet_at: float | None
    finished_at: float
    outcome: Outcome
    # OpenAI's word; null unless the answer came to its end.
    finish_reason: str | None
    client_disconnected: bool
    prompt_text_tokens: int = 0
    prompt_audio_tokens: int = 0
    prompt_image_tokens: int = 0
    prompt_video_tokens: int = 0
    # Of the prompt.
    cached_tokens: int = 0
    # Without those that it thought with.
    completion_text_tokens: int = 0
    completion_reasoning_tokens: int = 0
    # Codec frames.
    completion_audio_tokens: int = 0
    audio_in_ms: int = 0
    audio_out_ms: int = 0
    # 0 for the rest of a request whose beginning has a record of its own.
    requests: int = 1

    @property
    def prompt_tokens(self) -> int:
        seen = self.prompt_image_tokens + self.prompt_video_tokens
        return self.prompt_text_tokens + self.prompt_audio_tokens + seen

    @property
    def completion_tokens(self) -> int:
        return self.completion_text_tokens + self.completion_reasoning_tokens + self.completion_audio_tokens


class UsageLog(Protocol):
    async def append(self, record: UsageRecord) -> None:
        """A second time does nothing."""
        ...

    async def read(self, tenant: str, since: float, until: float, count: int) -> Sequence[UsageRecord]:
        """Of those finished in since <= finished_at < until the first `count`, in the order of finishing."""
        ...

    async def tenants(self) -> Sequence[str]:
        """Of whom there are records."""
        ...


class MemoryUsageLog:
    """The newest `count` records of each tenant."""

    def __init__(self, count: int) -> None:
        self._count = count
        # (finished_at, id, record), in the order of finishing
        self._kept: defaultdict[str, list[tuple[float, str, UsageRecord]]] = defaultdict(list)
        self._ids: set[tuple[str, str]] = set()

    async def append(self, record: UsageRecord) -> None:
        if (record.tenant, record.id) in self._ids:
            return
        self._ids.add((record.tenant, record.id))
        kept = self._kept[record.tenant]
        insort(kept, (record.finished_at, record.id, record), key=lambda entry: entry[:2])
        while len(kept) > self._count:
            self._ids.discard((record.tenant, kept.pop(0)[1]))

    async def read(self, tenant: str, since: float, until: float, count: int) -> Sequence[UsageRecord]:
        kept = self._kept.get(tenant, [])
        return [record for at, _, record in kept if since <= at < until][:count]

    async def tenants(self) -> Sequence[str]:
        return sorted(self._kept)
