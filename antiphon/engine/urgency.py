"""Who is in a hurry: whose listener is about to hear silence, and who has heard nothing yet. Decides only."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from antiphon.engine.fairness import Presence
from antiphon.engine.sequence import RequestT, Sequence

# A listener with less sound than this is about to hear silence; one with more than that has plenty.
_URGENT_SECONDS: Final = 0.25
_PLENTY_SECONDS: Final = 1.0
# One with less than this has no step to spare: a frame is 0.08 s.
ENDING_SECONDS: Final = 0.1
# For one sequence: it may wait for an input that never comes.
_SHORT_STEPS: Final = 64


def without_plenty(decodes: list[Sequence[RequestT]]) -> list[Sequence[RequestT]]:
    """All, unless somebody is about to hear silence. Of text, nobody has plenty."""
    if min((sequence.lead_seconds for sequence in decodes), default=_URGENT_SECONDS) >= _URGENT_SECONDS:
        return decodes
    return [sequence for sequence in decodes if sequence.lead_seconds < _PLENTY_SECONDS]


def is_ending(sequence: Sequence[RequestT]) -> bool:
    """Its listener hears silence unless the next step has a frame for him."""
    return bool(sequence.output_seconds and sequence.sampled_rows) and sequence.lead_seconds < ENDING_SECONDS


@dataclass(frozen=True, slots=True)
class FirstOutputs:
    """Of tenants that others outnumber.

    is_waited_for: steps last the longer the more sequences take part, so that who is next waits the shorter the fewer
    do. Where they take as long whoever takes part, nobody has to sit out.
    """

    present: Presence
    is_waited_for: bool

    def are_awaited(self, sequence: Sequence[RequestT]) -> bool:
        is_first = self.is_waited_for and not sequence.sampled_rows
        return is_first and self.present.is_outnumbered(sequence.share)

    def expected(self, sequences: Iterable[Sequence[RequestT]]) -> bool:
        """Whether to keep this step short for one whose own is the next, as it may be; so many times, and not for ever,
        for he may never come."""
        if not self.is_waited_for or len(self.present) < 2:
            return False
        awaited = [each for each in sequences if each.short_steps < _SHORT_STEPS and self.are_awaited(each)]
        for each in awaited:
            each.short_steps += 1
        return bool(awaited)
