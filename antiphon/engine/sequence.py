"""What the engine knows of one request: row counters, pages, outputs not yet taken, and its clock. No tensors.

A sequence is rows. Its prompt has `prompt_rows`; every output that it samples adds one. A row can be computed once its
input exists: `available_rows` says how far the inputs reach (rows of media still being encoded, or a Talker waiting
for text, hold it back). An output is sampled from the last of all rows, and only from that one.
"""

import sys
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, NamedTuple, TypeVar

from antiphon.engine.page_keys import PageKeys

# For available_rows: every input that will ever be needed is there.
ALL_ROWS: Final = sys.maxsize

FinishReason = Literal["stop", "length"]
Phase = Literal["waiting", "running", "ended"]

RequestT = TypeVar("RequestT")


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of one request, measured where it ran."""

    # From arrival until the first step that works on it.
    queue_ms: float
    # From that step until the first output; zero without one.
    first_output_ms: float
    # From arrival until the end.
    total_ms: float
    steps: int


@dataclass(slots=True)
class Clock:
    """Moments in the life of a request, in seconds of one monotonic clock."""

    arrived: float
    # The last time that all was there for its next output; 0 while it was from the beginning.
    complete: float = 0.0
    started: float | None = None
    first_output: float | None = None
    ended: float | None = None
    steps: int = 0

    def timings(self, now: float) -> Timings:
        ended = now if self.ended is None else self.ended
        started = ended if self.started is None else self.started
        first = started if self.first_output is None else self.first_output
        return Timings(
            (started - self.arrived) * 1e3, (first - started) * 1e3, (ended - self.arrived) * 1e3, self.steps
        )


@dataclass(frozen=True, slots=True)
class Share:
    """On whose behalf a request runs."""

    # Requests that name none are one tenant.
    tenant: str = ""
    # Of steps, beside other tenants.
    weight: float = 1.0
    # Nobody waits for it: it takes what others leave.
    is_batch: bool = False


@dataclass(slots=True, eq=False)
class Sequence(Generic[RequestT]):
    """request: what the runner needs to compute its rows; the engine never looks inside."""

    request: RequestT
    prompt_rows: int
    # Rows at the longest end: what the sequence may ever need of the key/value store.
    max_rows: int
    available_rows: int = ALL_ROWS
    # Outputs that may wait for their reader before the sequence pauses.
    max_untaken: int = ALL_ROWS
    clock: Clock = field(default_factory=lambda: Clock(0.0))
    # What its pages hold; without it they are shared with nobody.
    page_keys: PageKeys | None = None
    # For which its listener plays one output; zero where nobody listens.
    output_seconds: float = 0.0
    share: Share = field(default_factory=Share)
    # What may be sampled next depends on what was: it takes no part in a step while another of its own is under way.
    awaits_outputs: bool = False

    # The order of arrival; like all below it but the last four, the scheduler's to set.
    number: int = -1
    phase: Phase = "waiting"
    pages: list[int] = field(default_factory=list)
    computed_rows: int = 0
    # Rows that exist because an output was sampled.
    sampled_rows: int = 0
    # Rows that it took over from others before it ever computed them.
    cached_rows: int = 0
    # The most rows that it had before it lost its pages; zero while it never lost them.
    reached_rows: int = 0
    # Of its pages, those at the beginning that others can find; and, while it waits, those that it would find.
    published_pages: int = 0
    reusable_pages: int = 0
    # Taken by others that came later, while it waited for pages.
    passed_pages: int = 0
    # Steps that were kept short so that it does not wait for their end.
    short_steps: int = 0
    # Steps with rows of it that have begun and not ended.
    steps_under_way: int = 0
    # Outputs given by the engine, and taken by the reader: each is written by one thread only.
    emitted: int = 0
    taken: int = 0
    # When its listener has played all outputs, and how far away that was when the step was planned.
    plays_until: float = 0.0
    lead_seconds: float = 0.0

    def play(self, outputs: int, now: float) -> None:
        """What comes late is played when it comes, and all that follows later by as much."""
        self.plays_until = max(self.plays_until, now) + outputs * self.output_seconds

    @property
    def total_rows(self) -> int:
        return self.prompt_rows + self.sampled_rows

    @property
    def is_full(self) -> bool:
        """Its reader is behind, or will be once what is under way has ended: it pauses."""
        return self.emitted + self.steps_under_way - self.taken >= self.max_untaken

    @property
    def pending_rows(self) -> int:
        """Rows that could be computed now. What follows the longest end never is."""
        if self.emitted + self.steps_under_way - self.taken >= self.max_untaken:
            return 0
        if self.awaits_outputs and self.steps_under_way:
            return 0
        return min(self.prompt_rows + self.sampled_rows, self.max_rows, self.available_rows) - self.computed_rows

    @property
    def can_sample(self) -> bool:
        """Nothing but computing stands between it and its next output."""
        return self.available_rows >= self.total_rows and not self.is_full


class Slice(NamedTuple, Generic[RequestT]):
    """Rows [first_row, first_row + row_count) of a sequence, computed in one step."""

    sequence: Sequence[RequestT]
    first_row: int
    row_count: int
    # An output is sampled from its last row.
    samples: bool
    # Of its rows and those before them. The sequence may lose its own during the step, when it is cancelled.
    pages: list[int]
