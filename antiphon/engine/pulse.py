"""What a decoder's latest seconds were like: rows and outputs computed, how long steps took, and who waited."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from antiphon.engine.sequence import RequestT, Sequence, Slice
from antiphon.scaling.recent import RecentSum, RecentValues

# Whose listener has less sound than this is about to hear silence.
_SHORT_LEAD_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """Averages of the latest seconds, but for the last two, which are of now."""

    # Rows of prompts, and outputs, computed a second.
    prompt_rate: float = 0.0
    output_rate: float = 0.0
    # Of steps in which somebody went on.
    step_p95_seconds: float = 0.0
    # From the moment at which nothing but computing was missing.
    first_p95_seconds: float = 0.0
    # Sequences whose listener has begun to listen, and of these those about to hear silence though they could go on.
    playing: int = 0
    short_leads: int = 0


class Pulse:
    """Under the decoder's lock; moments are of time.perf_counter()."""

    def __init__(self) -> None:
        self._prompt_rows, self._outputs = RecentSum(), RecentSum()
        self._steps, self._firsts = RecentValues(), RecentValues()
        self._latest_end = 0.0

    def step(self, plan: Iterable[Slice[RequestT]], began: float, now: float) -> None:
        """One that began before the last one was over counts from there."""
        rows = outputs = 0
        for part in plan:
            goes_on = part.row_count == 1 and part.samples and part.first_row >= part.sequence.prompt_rows
            rows += 0 if goes_on else part.row_count
            outputs += part.samples
        self._prompt_rows.add(now, rows)
        self._outputs.add(now, outputs)
        if outputs:
            self._steps.add(now, now - max(began, self._latest_end))
        self._latest_end = now

    def first_output(self, sequence: Sequence[RequestT], now: float) -> None:
        self._firsts.add(now, now - max(sequence.clock.arrived, sequence.clock.complete))

    def pace(self, sequences: Iterable[Sequence[RequestT]], now: float) -> Pace:
        playing = [sequence for sequence in sequences if sequence.output_seconds and sequence.emitted]
        return Pace(
            prompt_rate=self._prompt_rows.rate(now),
            output_rate=self._outputs.rate(now),
            step_p95_seconds=self._steps.p95(now),
            first_p95_seconds=self._firsts.p95(now),
            playing=len(playing),
            short_leads=sum(_is_short(sequence, now) for sequence in playing),
        )


def _is_short(sequence: Sequence[RequestT], now: float) -> bool:
    could_go_on = sequence.steps_under_way > 0 or sequence.pending_rows > 0
    return could_go_on and sequence.plays_until - now < _SHORT_LEAD_SECONDS
