"""A codec in simulated time: speeches whose frames come at a steady rate, their pace, and one worker that computes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.codec.pace import Group, Pace

SAMPLES_PER_FRAME, LOOKAHEAD_SAMPLES, SAMPLE_RATE_HZ = 1920, 555, 24_000
FRAMES_PER_PUSH, FRAMES_PER_BATCH = 16, 16


@dataclass(frozen=True)
class Machine:
    """Seconds; a push of some frames of some speeches takes push + frames * speeches * frame."""

    push: float
    frame: float


@dataclass(eq=False)
class SimulatedSpeech:
    starts_at: float
    frame_seconds: float
    frame_count: int
    lead_seconds: float = 0.5
    pace: Pace = field(init=False)
    # Moments at which sound came, and how many samples.
    heard: list[tuple[float, int]] = field(default_factory=list)
    group_sizes: list[int] = field(default_factory=list)
    decoded: int = 0
    # The push that waits or runs: frames, when it is due, when it was asked for.
    asked: tuple[int, float, float] | None = None

    def __post_init__(self) -> None:
        self.pace = Pace(frames_per_push=FRAMES_PER_PUSH, lead_seconds=self.lead_seconds)

    def arrival(self, frame: int) -> float:
        return self.starts_at + frame * self.frame_seconds

    def waiting(self, now: float) -> int:
        return sum(self.arrival(frame) <= now + 1e-9 for frame in range(self.decoded, self.frame_count))

    def ask(self, now: float) -> None:
        """As the servicer does: takes a group once it is complete, its time has come, or nothing else will come."""
        waiting = self.waiting(now)
        if self.asked is not None or not waiting:
            return
        group = self.pace.next_group(now)
        if self._is_ready(group, waiting, now):
            self.asked = (min(waiting, group.most), group.due, now)

    def _is_ready(self, group: Group, waiting: int, now: float) -> bool:
        is_last = self.decoded + waiting == self.frame_count
        return waiting >= group.most or now >= group.fills_until - 1e-9 or is_last

    def next_moment(self, now: float) -> float:
        """At which something may change that is not the worker's doing."""
        moments = [self.arrival(frame) for frame in range(self.decoded, self.frame_count)]
        moments.append(self.pace.next_group(now).fills_until)
        return min((moment for moment in moments if moment > now + 1e-9), default=float("inf"))

    def hear(self, now: float) -> None:
        assert self.asked is not None
        frames, _, asked_at = self.asked
        samples = frames * SAMPLES_PER_FRAME - (0 if self.decoded else LOOKAHEAD_SAMPLES)
        self.decoded += frames
        self.asked = None
        self.group_sizes.append(frames)
        self.heard.append((now, samples))
        self.pace.pushed(now - asked_at)
        self.pace.delivered(samples, now)

    def silent_seconds(self) -> float:
        """In which a listener, who plays from the first sound on, had nothing left to play."""
        silent, ends_at = 0.0, self.heard[0][0]
        for moment, samples in self.heard:
            silent += max(moment - ends_at, 0.0)
            ends_at = max(ends_at, moment) + samples / SAMPLE_RATE_HZ
        return silent


def simulate(speeches: Sequence[SimulatedSpeech], machine: Machine) -> None:
    """Until every frame has been heard."""
    now, batch, ends_at = 0.0, list[SimulatedSpeech](), float("inf")
    while any(speech.decoded < speech.frame_count for speech in speeches):
        if batch and now >= ends_at - 1e-12:
            for speech in batch:
                speech.hear(now)
            batch = []
        for speech in speeches:
            speech.ask(now)
        if not batch and (batch := _most_urgent(speeches)):
            frames = sum(speech.asked[0] for speech in batch if speech.asked)
            ends_at = now + machine.push + machine.frame * frames
        changes = [speech.next_moment(now) for speech in speeches if speech.decoded < speech.frame_count]
        now = min([*changes, ends_at] if batch else changes, default=now)


def _most_urgent(speeches: Sequence[SimulatedSpeech]) -> list[SimulatedSpeech]:
    """Those that go with the one that is due first: as many frames, all of them the first of a speech or none."""
    asking = [(speech.asked, speech) for speech in speeches if speech.asked is not None]
    ordered = [(asked[0], not speech.decoded, speech) for asked, speech in sorted(asking, key=lambda each: each[0][1])]
    alike = [speech for frames, is_first, speech in ordered if (frames, is_first) == ordered[0][:2]]
    return alike[: max(FRAMES_PER_BATCH // ordered[0][0], 1)] if ordered else []
