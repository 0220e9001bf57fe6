"""What a turn has taken so far, whole at whatever moment it ends: it is what a tenant pays for."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from antiphon.prompt.prompt import TokenCounts
from antiphon.sessions.turn_journal import Charged
from antiphon.tenancy.limiter import Amounts
from services.gateway.turns.request import FinishReason

_SAMPLES_PER_MS: Final = 24
_SAMPLES_PER_FRAME: Final = 1920
_NOTHING: Final = TokenCounts(text=0, audio=0, image=0, video=0)
_NOT_CHARGED: Final = Charged(0, 0, 0)


@dataclass(slots=True)
class TurnUsage:
    prompt: TokenCounts = _NOTHING
    # The turn can be answered: its media are what they should be, and its prompt fits.
    prompt_is_built: asyncio.Event = field(default_factory=asyncio.Event, compare=False, repr=False)
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
    # Of an answer that goes on here: what of all this its tenant was charged for before.
    charged: Charged | None = None
    # The answer goes on at another gateway, and so does its bill.
    is_charged_elsewhere: bool = False

    @property
    def audio_out_ms(self) -> int:
        return self.audio_out_samples // _SAMPLES_PER_MS

    @property
    def tokens(self) -> int:
        return self.prompt.total + self.text_tokens + self.audio_tokens

    @property
    def total(self) -> Charged:
        """What will have been charged when this is."""
        before = self.charged or _NOT_CHARGED
        return Charged(
            max(self.text_tokens, before.token_ids),
            max(self.audio_tokens, before.frames),
            max(self._heard_samples, before.samples),
        )

    @property
    def _heard_samples(self) -> int:
        """Whoever goes on with an answer tells how much of it he has: no more than was spoken."""
        return min(self.audio_out_samples, self.audio_tokens * _SAMPLES_PER_FRAME)

    def owed(self) -> "TurnUsage":
        """Without what was charged before."""
        before = self.charged
        if before is None:
            return replace(self, audio_out_samples=self._heard_samples)
        total = self.total
        text_tokens = total.token_ids - before.token_ids
        return replace(
            self,
            prompt=_NOTHING,
            cached_tokens=0,
            text_tokens=text_tokens,
            reasoning_tokens=min(self.reasoning_tokens, text_tokens),
            audio_tokens=total.frames - before.frames,
            audio_in_ms=0,
            audio_out_samples=total.samples - before.samples,
        )

    def amounts(self) -> Amounts:
        owed = self.owed()
        return Amounts(int(self.charged is None), owed.tokens, owed.audio_in_ms, owed.audio_out_ms)
