"""Watches one turn: the parts of its first packet, its listener, the events of its root span, its metrics."""

import time

from opentelemetry.trace import Span

from antiphon.prompt.prompt import TokenCounts
from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacket, FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.playback import Playback
from services.gateway.turns.request import TurnEnd
from services.gateway.turns.usage import TurnUsage

_MODALITIES = ("text", "audio", "image", "video")


class TurnWatch:
    """Every mark counts once, the first time."""

    def __init__(self, span: Span, metrics: Metrics, clock: FirstPacketClock) -> None:
        """clock: started when the request arrived."""
        self._span, self._metrics, self._clock = span, metrics, clock
        self._seen: set[str] = set()
        self._playback = Playback()
        # When the sound that a listener waits for is due; None where nobody listens.
        self._sound_due_at: float | None = None
        # So far: what a turn that is cut short has cost.
        self.usage = TurnUsage()

    def listened_to(self, first_sound_seconds: float) -> None:
        """Somebody plays the sound as it comes, and hopes for the first of it within so long."""
        self._sound_due_at = time.monotonic() + first_sound_seconds

    def answers(self, span: Span, clock: FirstPacketClock) -> "TurnWatch":
        """What was begun ahead is wanted now: it is told on this span, and its time runs from now."""
        self._span, self._clock = span, clock
        return self

    def late_seconds(self, now: float) -> float:
        """For how long he has been waiting for sound that was due; now: of time.monotonic()."""
        return 0.0 if self._sound_due_at is None else max(0.0, now - self._sound_due_at)

    def prepared(self) -> None:
        self._clock.mark("prepare")

    def encoded(self) -> None:
        self._clock.mark("encoders")

    def media_encoded(self, count: int, *, cached: int) -> None:
        """cached: of them, for an earlier request."""
        self._span.set_attribute(names.CACHED_MEDIA, cached)
        self._metrics.count_media(computed=count - cached, cached=cached)

    def prompt_built(self, counts: TokenCounts, audio_seconds: float) -> None:
        self.usage.prompt, self.usage.audio_in_ms = counts, round(audio_seconds * 1e3)
        self.usage.prompt_is_built.set()

    def prompt_cached(self, tokens: int) -> None:
        self.usage.cached_tokens += tokens

    def token(self) -> None:
        self.usage.text_tokens += 1
        if self._is_first(names.EVENT_FIRST_TOKEN):
            self._clock.mark("thinker")

    def frames(self, count: int) -> None:
        self.usage.audio_tokens += count
        if self._is_first(names.EVENT_FIRST_FRAME):
            self._clock.mark("talker")

    def pcm(self) -> None:
        if self._is_first(names.EVENT_FIRST_PCM):
            self._clock.mark("codec")

    def packet_sent(self, *, has_sound: bool, sample_count: int = 0) -> None:
        """A packet of the answer has been handed to the socket; if it has sound, with so many samples."""
        if sample_count:
            self._playback.deliver(sample_count, time.monotonic())
            self._sound_due_at = self._sound_due_at and self._playback.ends_at
        self.usage.audio_out_samples += sample_count
        if not self._is_first(names.EVENT_FIRST_BYTE):
            return
        self.usage.first_packet_at = time.time()
        self._clock.mark("emit")
        packet = self._clock.first_packet
        if packet is not None:
            self._span.set_attributes(packet.attributes())
            if has_sound:
                self._metrics.observe_first_packet(packet)

    def ended(self, end: TurnEnd) -> None:
        self._sound_due_at = None
        self.usage.finish_reason = end.finish_reason
        self._span.set_attributes(
            {
                names.GEN_AI_RESPONSE_FINISH_REASONS: (end.finish_reason,),
                names.GEN_AI_USAGE_INPUT_TOKENS: end.prompt_tokens.total,
                names.GEN_AI_USAGE_CACHED_TOKENS: end.cached_tokens,
                names.GEN_AI_USAGE_OUTPUT_TOKENS: end.text_tokens + end.audio_tokens,
                names.FRAME_COUNT: end.audio_tokens,
            }
        )
        if self._playback.ends_at is not None:
            self._span.set_attribute(names.PLAYBACK_SILENT, self._playback.silent_seconds * 1e3)
            self._metrics.playback_silent.observe(self._playback.silent_seconds)
        for modality in _MODALITIES:
            self._metrics.count_tokens("input", modality, getattr(end.prompt_tokens, modality))
        self._metrics.count_cached_tokens(end.cached_tokens)
        self._metrics.count_tokens("output", "text", end.text_tokens)
        self._metrics.count_tokens("output", "audio", end.audio_tokens)

    @property
    def first_packet(self) -> FirstPacket | None:
        return self._clock.first_packet

    def _is_first(self, event: str) -> bool:
        if event in self._seen:
            return False
        self._seen.add(event)
        tracing.first_event(self._span, event)
        return True
