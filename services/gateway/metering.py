"""The record of what a turn took, written however it ended."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field

from antiphon.tenancy.caller import Caller
from antiphon.tenancy.usage_log import Outcome, UsageRecord
from services.gateway.http.event_stream import ClientDisconnectedError
from services.gateway.turns.usage import TurnUsage


@dataclass(frozen=True, slots=True)
class MeteredRequest:
    """What is known of a turn before it runs."""

    # Such as "/v1/chat/completions".
    endpoint: str
    model: str
    id: str = field(default_factory=lambda: f"use_{uuid.uuid4().hex}")
    # Seconds since the epoch.
    started_at: float = field(default_factory=time.time)


def usage_record(caller: Caller, request: MeteredRequest, usage: TurnUsage, error: BaseException | None) -> UsageRecord:
    """error: with which the turn was left."""
    is_first, usage = usage.charged is None, usage.owed()
    return UsageRecord(
        id=request.id,
        tenant=caller.tenant,
        key_id=caller.key_id,
        model=request.model,
        endpoint=request.endpoint,
        started_at=request.started_at,
        first_packet_at=usage.first_packet_at,
        finished_at=time.time(),
        outcome=_outcome(usage, error),
        finish_reason=usage.finish_reason,
        client_disconnected=isinstance(error, ClientDisconnectedError),
        prompt_text_tokens=usage.prompt.text,
        prompt_audio_tokens=usage.prompt.audio,
        prompt_image_tokens=usage.prompt.image,
        prompt_video_tokens=usage.prompt.video,
        cached_tokens=usage.cached_tokens,
        completion_text_tokens=usage.text_tokens - usage.reasoning_tokens,
        completion_reasoning_tokens=usage.reasoning_tokens,
        completion_audio_tokens=usage.audio_tokens,
        audio_in_ms=usage.audio_in_ms,
        audio_out_ms=usage.audio_out_ms,
        requests=int(is_first),
    )


def _outcome(usage: TurnUsage, error: BaseException | None) -> Outcome:
    if usage.finish_reason is not None:
        return "completed"
    if isinstance(error, ClientDisconnectedError | asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "failed"
