"""What a turn has taken so far, whole at whatever moment it ends: it is what a tenant pays for."""

from dataclasses import dataclass
from typing import Final

from antiphon.prompt.prompt import TokenCounts
from antiphon.tenancy.limiter import Amounts
from services.gateway.turn_request import FinishReason

_SAMPLES_PER_MS: Final = 24
_NOTHING: Final = TokenCounts(text=0, audio=0, image=0, video=0)


@dataclass(slots=True)
class TurnUsage:
    prompt: TokenCounts = _NOTHING
    # Of the prompt.
    cached_tokens: int = 0
    # Written by the Thinker, thoughts included.
    text_tokens: int = 0
    # Of the text: thoughts.
    reasoning_tokens: int = 0
    # Codec frames.
    audio_tokens: int = 0
    audio_in_ms: int = 0
    # Handed to the client, or kept for it where the answer goes out whole.
    audio_out_samples: int = 0
    # Seconds since the epoch; None before.
    first_packet_at: float | None = None
    # None unless the answer came to its end.
    finish_reason: FinishReason | None = None

    @property
    def audio_out_ms(self) -> int:
        return self.audio_out_samples // _SAMPLES_PER_MS

    @property
    def tokens(self) -> int:
        return self.prompt.total + self.text_tokens + self.audio_tokens

    def amounts(self) -> Amounts:
        return Amounts(1, self.tokens, self.audio_in_ms, self.audio_out_ms)
