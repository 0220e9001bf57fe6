"""One tenant's flood does not make another's first outputs wait for its own."""

from itertools import pairwise

import pytest

from antiphon.engine.fairness import Presence
from antiphon.engine.sequence import Sequence, Share
from tests.engine.test_fairness import FLOOD, QUIET, Machine, limits

_CROWD = 6


@pytest.fixture
def flooded() -> Machine:
    """Steps of at most 4 sequences that go on and 128 rows; 6 of the flood go on in them."""
    machine = Machine(limits(shared=4))
    for _ in range(_CROWD):
        machine.send(FLOOD, prompt_rows=10, outputs=400)
    machine.step()
    return machine


def waiting_for_text(machine: Machine, rows: int = 20) -> Sequence[str]:
    """Of a quiet tenant; the input of its last row has not come."""
    sequence = Sequence("quiet", rows, rows + 9, available_rows=rows - 1, share=QUIET)
    machine.scheduler.add(sequence)
    machine.step()
    assert sequence.computed_rows == rows - 1
    return sequence


def test_a_first_output_is_computed_alone_and_the_others_go_on_in_the_next_step(flooded: Machine) -> None:
    flooded.send(QUIET)
    assert flooded.step() == ["quiet"]
    assert flooded.step().count("flood") >= 3


def test_a_first_output_is_computed_alone_when_its_last_input_has_come(flooded: Machine) -> None:
    quiet = waiting_for_text(flooded)
    flooded.step()
    quiet.available_rows = 20
    assert flooded.step() == ["quiet"]
    assert quiet.sampled_rows == 1


def test_no_two_steps_in_a_row_leave_the_others_out(flooded: Machine) -> None:
    took_part = []
    for _ in range(20):
        flooded.send(QUIET, outputs=1)
        took_part.append("flood" in flooded.step())
    assert all(before or after for before, after in pairwise(took_part))
    assert not all(took_part)


def test_speech_about_to_end_takes_part_all_the_same(flooded: Machine) -> None:
    for lead, sequence in enumerate(flooded.scheduler.running):
        sequence.output_seconds, sequence.lead_seconds = 0.08, 0.05 + 0.1 * lead
    flooded.send(QUIET)
    assert sorted(flooded.step()) == ["flood", "quiet"]


def test_steps_are_kept_short_while_somebody_waits_for_the_input_of_his_first_output(flooded: Machine) -> None:
    quiet = waiting_for_text(flooded)
    assert flooded.step() == ["flood"] * 2
    flooded.send(FLOOD, prompt_rows=100)
    computed = flooded.computed["flood"]
    flooded.step()
    assert flooded.computed["flood"] - computed == 2 + 128 // 4
    quiet.available_rows = 20
    flooded.step()
    assert len(flooded.step()) > 3, "he has his first output"


def test_steps_are_not_kept_short_for_ever_for_an_input_that_never_comes(flooded: Machine) -> None:
    waiting_for_text(flooded)
    steps = [len(flooded.step()) for _ in range(80)]
    assert steps == [2] * steps.count(2) + [4] * steps.count(4)
    assert 40 < steps.count(2) < 70


def test_a_prompt_that_no_step_holds_is_read_beside_the_others(flooded: Machine) -> None:
    flooded.send(QUIET, prompt_rows=1000)
    assert "flood" in flooded.step()


def test_among_tenants_with_as_many_requests_as_each_other_nobody_sits_out() -> None:
    machine = Machine(limits(shared=4))
    for number in range(4):
        machine.send(Share(f"tenant {number}"), prompt_rows=10, outputs=400)
    machine.step()
    machine.send(QUIET)
    assert len(machine.step()) == 5


@pytest.mark.parametrize("shared", [4, None])
def test_a_tenant_alone_fills_every_step(shared: int | None) -> None:
    machine = Machine(limits(shared=shared))
    for _ in range(8):
        machine.send(FLOOD, prompt_rows=10, outputs=400)
    machine.step()
    machine.send(FLOOD, prompt_rows=10)
    assert len(machine.step()) == 9


def test_where_steps_take_as_long_whoever_takes_part_nobody_sits_out() -> None:
    machine = Machine(limits(shared=None))
    for _ in range(_CROWD):
        machine.send(FLOOD, prompt_rows=10, outputs=400)
    machine.step()
    machine.send(QUIET)
    assert len(machine.step()) == _CROWD + 1


def test_batch_work_is_never_waited_for(flooded: Machine) -> None:
    flooded.send(Share("nightly", is_batch=True))
    assert "flood" in flooded.step()


def test_a_tenant_with_half_of_its_part_or_less_is_outnumbered() -> None:
    present = Presence()
    assert not present.is_outnumbered(QUIET), "nobody is here"
    present.arrive(QUIET)
    assert not present.is_outnumbered(QUIET), "nobody else is here"
    for _ in range(2):
        present.arrive(FLOOD)
    assert not present.is_outnumbered(QUIET)
    present.arrive(FLOOD)
    assert present.is_outnumbered(QUIET)
    assert not present.is_outnumbered(FLOOD)
    for _ in range(3):
        present.depart(FLOOD)
    assert not present.is_outnumbered(QUIET)


def test_a_tenant_about_to_come_counts_as_here() -> None:
    present = Presence()
    for _ in range(3):
        assert not present.is_outnumbered(QUIET)
        present.arrive(FLOOD)
    assert present.is_outnumbered(QUIET)


def test_a_tenant_of_more_weight_is_outnumbered_sooner() -> None:
    present = Presence()
    for share in (heavy := Share("heavy", weight=3.0), FLOOD, FLOOD):
        present.arrive(share)
    assert present.is_outnumbered(heavy)


def test_between_two_steps_of_a_flood_a_first_output_comes_as_soon_as_with_nobody_else_there() -> None:
    """In simulated time."""
    alone, flooded = Machine(limits(shared=4)), Machine(limits(shared=4))
    for _ in range(40):
        flooded.send(FLOOD, prompt_rows=10, outputs=400)
    for _ in range(20):
        flooded.step()
    assert flooded.time_to_first(QUIET) == pytest.approx(alone.time_to_first(QUIET))
