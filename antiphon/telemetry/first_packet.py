"""Where the time until the first sound went: parts that follow each other without a gap and sum to the whole."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from antiphon.telemetry import names
from antiphon.telemetry.names import FIRST_PACKET_PARTS, FirstPacketPart


@dataclass(frozen=True, slots=True)
class FirstPacket:
    parts_ms: Mapping[FirstPacketPart, float]

    @property
    def total_ms(self) -> float:
        return sum(self.parts_ms.values())

    def attributes(self) -> dict[str, float]:
        """For the turn's root span."""
        found = {names.FIRST_PACKET_PART.format(part=part): value for part, value in self.parts_ms.items()}
        return {**found, names.FIRST_PACKET_TOTAL: self.total_ms}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, object]) -> "FirstPacket | None":
        found: dict[FirstPacketPart, float] = {}
        for part in FIRST_PACKET_PARTS:
            value = attributes.get(names.FIRST_PACKET_PART.format(part=part))
            if isinstance(value, (int, float)):
                found[part] = float(value)
        return cls(found) if found else None

    def table(self, bar_width: int = 30) -> str:
        """One line a part, then the total."""
        scale = bar_width / max(self.total_ms, 1e-9)
        lines = [_line(part, value, "█" * round(value * scale)) for part, value in self.parts_ms.items()]
        return "\n".join([*lines, _line("first packet", self.total_ms, "")])


class FirstPacketClock:
    """Marks the moment at which each part of a turn is over; a part's time runs from the mark before it."""

    def __init__(self, now_seconds: Callable[[], float] = time.perf_counter) -> None:
        self._now_seconds = now_seconds
        self._last = now_seconds()
        self._parts_ms: dict[FirstPacketPart, float] = {}

    def mark(self, part: FirstPacketPart) -> None:
        """The first mark of a part counts; later ones are ignored."""
        if part in self._parts_ms:
            return
        now = self._now_seconds()
        self._parts_ms[part] = (now - self._last) * 1e3
        self._last = now

    @property
    def first_packet(self) -> FirstPacket | None:
        """None until the last part, "emit", is over."""
        if "emit" not in self._parts_ms:
            return None
        return FirstPacket({part: self._parts_ms.get(part, 0.0) for part in FIRST_PACKET_PARTS})


def _line(label: str, value_ms: float, bar: str) -> str:
    return f"  {label:<14}{value_ms:>9.1f} ms  {bar}".rstrip()
