"""The sound that a client has sent and not yet made an item of; positions are of all sound of the session."""

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, Encoding

_SAMPLE_BYTES = 2


class InputBuffer:
    def __init__(self, encoding: Encoding, most_seconds: float, start_ms: float = 0.0) -> None:
        self.encoding: Encoding = encoding
        self._most_seconds = most_seconds
        self._pcm = bytearray()
        # Of the first byte held.
        self.start_ms = start_ms

    @property
    def end_ms(self) -> float:
        return self.start_ms + self.held_ms

    @property
    def held_ms(self) -> float:
        return len(self._pcm) / self.bytes_per_ms

    @property
    def is_full(self) -> bool:
        return self.held_ms >= self._most_seconds * 1e3

    def append(self, pcm16: bytes) -> None:
        """Raises when it would hold more than it may."""
        if len(self._pcm) + len(pcm16) > (self._most_seconds + 1) * 1e3 * self.bytes_per_ms:
            raise InvalidInput(
                f"The input audio buffer is full: it holds at most {self._most_seconds:g} s. Commit or clear it.",
                param="audio",
                code="input_audio_buffer_full",
            )
        self._pcm += pcm16

    def drop_before(self, position_ms: float) -> None:
        self._cut(position_ms)

    def take_until(self, position_ms: float) -> bytes:
        return self._cut(position_ms)

    def take_all(self) -> bytes:
        return self._cut(self.end_ms)

    def until(self, position_ms: float) -> bytes:
        """What `take_until` would take."""
        return bytes(self._pcm[: self._byte_count(position_ms)])

    @property
    def bytes_per_ms(self) -> float:
        return SAMPLE_RATES_HZ[self.encoding] * _SAMPLE_BYTES / 1e3

    def _cut(self, position_ms: float) -> bytes:
        count = self._byte_count(position_ms)
        taken = bytes(self._pcm[:count])
        del self._pcm[:count]
        self.start_ms += count / self.bytes_per_ms
        return taken

    def _byte_count(self, position_ms: float) -> int:
        """Held before this position."""
        samples = round((position_ms - self.start_ms) * self.bytes_per_ms / _SAMPLE_BYTES)
        return max(0, min(samples * _SAMPLE_BYTES, len(self._pcm)))
