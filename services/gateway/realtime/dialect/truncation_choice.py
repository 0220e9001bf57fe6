"""What a client says of conversations that grow too long."""

from typing import Literal

from pydantic import Field

from services.gateway.realtime.core.response import Truncation
from services.gateway.realtime.dialect.part import Part


class TokenLimits(Part):
    post_instructions: int | None = Field(None, ge=1)


class RetentionRatio(Part):
    type: Literal["retention_ratio"]
    retention_ratio: float = Field(ge=0, le=1)
    token_limits: TokenLimits | None = None


TruncationChoice = Literal["auto", "disabled"] | RetentionRatio


def truncation_of(asked: TruncationChoice) -> Truncation:
    if isinstance(asked, RetentionRatio):
        limits = asked.token_limits or TokenLimits()
        return Truncation(asked.retention_ratio, limits.post_instructions)
    return Truncation(None if asked == "disabled" else 1.0)
