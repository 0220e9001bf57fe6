"""The gateway finds out how many turns the machine serves in time, and keeps the others out."""

from dataclasses import dataclass, field

import pytest

from services.gateway.turns.capacity import Capacity

TURN_SECONDS = 6.0
REACTION_SECONDS = 0.4


@dataclass
class Machine:
    """Serves so many turns at once in time; beyond that every listener hears silence, a moment later."""

    serves: int
    capacity: Capacity
    now: float = 0.0
    ends: list[float] = field(default_factory=list)
    late_since: float | None = None
    admitted: int = 0
    refused: int = 0
    late: int = 0

    def offer(self, per_second: float, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 1 / per_second
            self.ends = [end for end in self.ends if end > self.now]
            overloaded = len(self.ends) > self.serves
            self.late_since = (self.late_since or self.now) if overloaded else None
            is_late = self.late_since is not None and self.now - self.late_since > REACTION_SECONDS
            self.capacity.observe(self.now, len(self.ends), len(self.ends) if is_late else 0)
            if len(self.ends) >= self.capacity.turns:
                self.refused += 1
                continue
            self.admitted += 1
            self.late += overloaded
            self.ends.append(self.now + TURN_SECONDS)


@pytest.mark.parametrize("serves", [3, 12, 60])
def test_twice_what_the_machine_can_do_is_let_in_by_half(serves: int) -> None:
    machine = Machine(serves, Capacity(128))
    machine.offer(2 * serves / TURN_SECONDS, seconds=120)
    can_do = 120 / TURN_SECONDS * serves
    assert 0.8 * can_do < machine.admitted < 1.2 * can_do
    assert machine.late < 0.2 * machine.admitted


def test_who_stays_below_is_never_refused() -> None:
    machine = Machine(20, Capacity(128))
    machine.offer(0.7 * 20 / TURN_SECONDS, seconds=300)
    assert machine.refused == 0


def test_after_a_flood_everybody_is_let_in_again() -> None:
    machine = Machine(12, Capacity(128))
    machine.offer(40 / TURN_SECONDS, seconds=60)
    machine.serves = 100
    machine.offer(60 / TURN_SECONDS, seconds=120)
    refused = machine.refused
    machine.offer(60 / TURN_SECONDS, seconds=60)
    assert machine.refused - refused < 0.05 * 600


def test_one_slow_listener_among_many_changes_nothing() -> None:
    capacity = Capacity(32)
    for second in range(100):
        capacity.observe(float(second), open_turns=12, late_turns=1)
    assert capacity.turns == 32


def test_somebody_is_let_in_even_where_everybody_is_late() -> None:
    capacity = Capacity(8)
    for second in range(100):
        capacity.observe(float(second), open_turns=1, late_turns=1)
    assert capacity.turns == 1


def test_the_bound_is_never_exceeded() -> None:
    capacity = Capacity(8)
    for second in range(100):
        capacity.observe(float(second), open_turns=8, late_turns=0)
    assert capacity.turns == 8
