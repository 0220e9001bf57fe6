"""When frames are decoded and how many together: sound comes in time wherever it can, and pushes are few."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.codec.pace import Pace
from tests.codec.simulated_codec import FRAMES_PER_BATCH, Machine, SimulatedSpeech, simulate

FIRST_SOUND_SECONDS = (1920 - 555) / 24_000


def milliseconds(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: value / 1e3)


speeches_of = st.lists(
    st.builds(
        SimulatedSpeech,
        starts_at=milliseconds(0, 1500),
        frame_seconds=milliseconds(2, 40),
        frame_count=st.integers(1, 90),
        lead_seconds=milliseconds(100, 1000),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(speeches_of, st.builds(Machine, push=milliseconds(0.1, 6), frame=milliseconds(0.02, 2)))
def test_nobody_hears_silence_when_the_machine_can_keep_up(speeches: list[SimulatedSpeech], machine: Machine) -> None:
    longest_push = machine.push + FRAMES_PER_BATCH * machine.frame
    # At worst the second frame of a speech comes just after a long push began, and after it go two pushes of one frame
    # of everybody: of those who are about to begin, and of those in whose number it is.
    everybody = machine.push + len(speeches) * machine.frame
    slowest = max(speech.frame_seconds for speech in speeches)
    assume(slowest + longest_push + 2 * everybody < FIRST_SOUND_SECONDS)
    simulate(speeches, machine)
    assert [speech.silent_seconds() for speech in speeches] == [0.0] * len(speeches)
    assert all(sum(speech.group_sizes) == speech.frame_count for speech in speeches)


def test_long_groups_of_others_do_not_starve_who_begins() -> None:
    stored = [SimulatedSpeech(starts_at=0.0, frame_seconds=0.0, frame_count=90) for _ in range(7)]
    begins = SimulatedSpeech(starts_at=0.2, frame_seconds=0.010, frame_count=30)
    simulate([*stored, begins], Machine(push=0.004, frame=0.0015))
    assert begins.silent_seconds() == 0.0
    assert begins.heard[0][0] < 0.2 + 0.06, "at most one push of others goes before it"


def test_the_first_frame_goes_alone_and_at_once() -> None:
    speech = SimulatedSpeech(starts_at=1.0, frame_seconds=0.0, frame_count=40)
    simulate([speech], Machine(push=0.004, frame=0.002))
    assert speech.group_sizes[0] == 1
    assert abs(speech.heard[0][0] - 1.006) < 1e-9


def test_a_fast_talker_needs_few_pushes() -> None:
    speech = SimulatedSpeech(starts_at=0.0, frame_seconds=0.010, frame_count=100)
    simulate([speech], Machine(push=0.004, frame=0.0005))
    assert speech.silent_seconds() == 0.0
    assert max(speech.group_sizes) == 16
    assert len(speech.group_sizes) < 16, "a push for each of 100 frames would be as fast, and cost six times as much"


def test_a_talker_that_is_hardly_faster_than_its_listener_is_not_held_up() -> None:
    speech = SimulatedSpeech(starts_at=0.0, frame_seconds=0.050, frame_count=60)
    simulate([speech], Machine(push=0.002, frame=0.0005))
    assert speech.silent_seconds() == 0.0
    assert speech.group_sizes[:12] == [1] * 12, "his listener never has half a second in hand until then"


def test_a_listener_who_has_heard_silence_is_the_most_urgent() -> None:
    starved, fed = (Pace(frames_per_push=16, lead_seconds=0.5) for _ in range(2))
    starved.delivered(1365, now=10.0)
    fed.delivered(48_000, now=10.0)
    now = 10.2
    assert starved.next_group(now).due < now < fed.next_group(now).due
    assert starved.next_group(now).fills_until < now < fed.next_group(now).fills_until
    starved.delivered(1920, now)
    assert starved.next_group(now).due == now + 0.08, "what came late plays on from there"


def test_frames_wait_less_where_pushes_take_longer() -> None:
    quick, slow = (Pace(frames_per_push=16, lead_seconds=0.5) for _ in range(2))
    for pace, seconds in ((quick, 0.01), (slow, 0.2)):
        pace.pushed(seconds)
        pace.delivered(48_000, now=0.0)
    assert quick.next_group(0.0).fills_until - slow.next_group(0.0).fills_until == pytest.approx(0.2 - 0.01)
