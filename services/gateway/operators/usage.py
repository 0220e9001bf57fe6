"""GET /v1/organization/usage: what the caller's tenant took, in buckets of time."""

import time
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request

from antiphon.errors import InvalidInput
from antiphon.tenancy.usage_log import UsageLog
from antiphon.tenancy.usage_pages import (
    WIDTH_SECONDS,
    Buckets,
    BucketWidth,
    GroupBy,
    UsageBucket,
    UsageSum,
    every_record,
)
from services.gateway.tenants import caller_of

_BUCKETS: Final = 1440

_Time = Annotated[int, Query(ge=0, le=1 << 40, description="Seconds since the epoch.")]


class UsageResult(BaseModel):
    """Names that are not grouped by are null."""

    object: Literal["organization.usage.result"] = "organization.usage.result"
    num_model_requests: int
    input_tokens: int
    input_cached_tokens: int
    input_audio_tokens: int
    output_tokens: int
    output_audio_tokens: int
    input_audio_ms: int
    output_audio_ms: int
    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    endpoint: str | None = None


class UsagePageBucket(BaseModel):
    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[UsageResult]


class UsagePage(BaseModel):
    object: Literal["page"] = "page"
    data: list[UsagePageBucket]
    has_more: Literal[False] = False
    next_page: None = None


def usage_router(log: UsageLog, most_records: int) -> APIRouter:
    """most_records: that one question may be about."""
    router = APIRouter()

    @router.get("/v1/organization/usage", summary="What this tenant took, in buckets of time")
    async def usage(
        request: Request,
        start_time: _Time,
        end_time: _Time | None = None,
        bucket_width: BucketWidth = "1d",
        group_by: Annotated[list[GroupBy] | None, Query(max_length=4)] = None,
    ) -> UsagePage:
        until = int(time.time()) + 1 if end_time is None else end_time
        _check_window(start_time, until, bucket_width)
        groups = list(dict.fromkeys(group_by or ()))
        buckets = Buckets(start_time, until, bucket_width, groups)
        count = 0
        async for record in every_record(log, caller_of(request.scope).tenant, start_time, until):
            count += 1
            _check_count(count, most_records)
            buckets.add(record)
        return UsagePage(data=[_page_bucket(bucket, groups) for bucket in buckets.buckets])

    return router


def _check_window(since: int, until: int, width: BucketWidth) -> None:
    if until <= since:
        raise InvalidInput(f"Expected end_time after start_time; got {since} and {until}.", param="end_time")
    most = _BUCKETS * WIDTH_SECONDS[width]
    if until - since > most:
        raise InvalidInput(
            f"Expected at most {_BUCKETS} buckets of {width}, that is {most} s; got {until - since} s. "
            "Ask for a later start_time or a greater bucket_width.",
            param="start_time",
        )


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise InvalidInput(
            f"Expected a time with at most {most} usage records; there are more. Ask for a shorter one.",
            param="end_time",
        )


def _page_bucket(bucket: UsageBucket, group_by: list[GroupBy]) -> UsagePageBucket:
    results = [_result(total, dict(zip(group_by, group, strict=True))) for group, total in bucket.sums.items()]
    return UsagePageBucket(start_time=bucket.start, end_time=bucket.end, results=results)


def _result(total: UsageSum, group: dict[GroupBy, str]) -> UsageResult:
    return UsageResult(
        num_model_requests=total.requests,
        input_tokens=total.prompt_tokens,
        input_cached_tokens=total.cached_tokens,
        input_audio_tokens=total.prompt_audio_tokens,
        output_tokens=total.completion_tokens,
        output_audio_tokens=total.completion_audio_tokens,
        input_audio_ms=total.audio_in_ms,
        output_audio_ms=total.audio_out_ms,
        tenant=group.get("tenant"),
        key_id=group.get("key_id"),
        model=group.get("model"),
        endpoint=group.get("endpoint"),
    )
