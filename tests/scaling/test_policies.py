"""What each stage's load asks for, window by window."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.scaling.policies import CallsPolicy, EncodersPolicy, ExpertsPolicy, SpeechPolicy, ThinkerPolicy
from antiphon.scaling.signals import CallSignals, EncoderSignals, ExpertSignals, SpeechSignals, ThinkerSignals
from antiphon.scaling.window import SignalsT, Window

CALM = SpeechSignals(streams=20, places=128, sound_rate=18, playing=18, short_leads=0, first_p95_seconds=0.05)
READING = ThinkerSignals(
    waiting_rows=0, prompt_rate=1400, token_rate=140, step_p95_seconds=0.02, pages_used=100, page_count=1000
)
SHARD = ExpertSignals(queued_p95_seconds=0.0002, utilisation=0.3, capacity=32, experts=128)


def window(replicas: Sequence[SignalsT], *, running: int | None = None) -> Window[SignalsT]:
    count = len(replicas) if running is None else running
    return Window(at_seconds=0.0, target=count, running=count, replicas=replicas)


def test_a_talker_is_needed_for_so_many_listeners_as_it_keeps_in_sound() -> None:
    policy = SpeechPolicy(sound_per_replica=24, busy_share=0.75)
    assert policy.demand(window([CALM] * 4)).steady == pytest.approx(4 * 18 / (24 * 0.75))
    assert policy.demand(window([CALM] * 4)).relief == 0


def test_listeners_who_get_less_than_a_second_a_second_need_it_all_the_same() -> None:
    policy = SpeechPolicy(sound_per_replica=24, busy_share=0.75)
    drowning = replace(CALM, sound_rate=10, playing=30)
    assert policy.demand(window([drowning] * 4)).steady == pytest.approx(4 * 30 / (24 * 0.75))


def test_listeners_about_to_hear_silence_ask_for_more_before_any_does() -> None:
    at_risk = replace(CALM, short_leads=9)
    demand = SpeechPolicy(short_leads_share=0.05).demand(window([at_risk] * 4))
    assert demand.relief == pytest.approx(4 * 2 * (0.5 - 0.05))


def test_first_sounds_that_come_late_ask_for_more_and_never_for_more_than_twice_what_runs() -> None:
    policy = SpeechPolicy(first_seconds=0.2)
    assert policy.demand(window([replace(CALM, first_p95_seconds=0.3)] * 4)).relief == pytest.approx(2)
    assert policy.demand(window([replace(CALM, first_p95_seconds=60.0)] * 4)).relief == 4


def test_prompts_that_wait_ask_for_as_many_as_read_them_in_time() -> None:
    policy = ThinkerPolicy(prompt_rows_per_second=2000, backlog_seconds=0.5)
    waiting = replace(READING, waiting_rows=500)
    assert policy.demand(window([waiting] * 4)).relief == pytest.approx(4 * 500 / 2000 / 0.5)


def test_tokens_slower_than_speech_ask_for_more() -> None:
    slow = replace(READING, step_p95_seconds=0.12)
    assert ThinkerPolicy(step_seconds=0.08).demand(window([slow] * 4)).relief == pytest.approx(2)


def test_full_pages_ask_for_more_however_little_is_computed() -> None:
    full = replace(READING, prompt_rate=0, token_rate=0, pages_used=800)
    assert ThinkerPolicy(pages_share=0.8).demand(window([full] * 3)).steady == pytest.approx(3)


def test_media_that_wait_ask_for_as_many_encoders_as_compute_them_in_time() -> None:
    demand = EncodersPolicy(busy_share=0.5, backlog_seconds=2).demand(window([EncoderSignals(3.0, 0.5)] * 2))
    assert (demand.steady, demand.relief) == (2.0, 2.0)


def test_shards_are_never_fewer_than_all_experts_and_their_copies_need() -> None:
    idle = replace(SHARD, utilisation=0.0)
    policy = ExpertsPolicy(redundancy=0.25)
    assert policy.demand(window([idle] * 8)).floor == 5  # 128 experts and a quarter more, 32 a shard
    assert ExpertsPolicy(copies=2).demand(window([idle] * 8)).floor == 8
    roomy = replace(idle, capacity=128)
    assert policy.demand(window([roomy] * 4)).floor == 1
    assert ExpertsPolicy(copies=2).demand(window([roomy] * 4)).floor == 2


def test_experts_follow_utilisation_and_what_calls_wait() -> None:
    policy = ExpertsPolicy(utilisation=0.6, queued_seconds=0.001)
    assert policy.demand(window([SHARD] * 4)).steady == pytest.approx(2)
    assert policy.demand(window([replace(SHARD, queued_p95_seconds=0.0015)] * 4)).relief == pytest.approx(2)


def test_silent_replicas_are_taken_to_be_like_the_others() -> None:
    told = window([CallSignals(8.0)] * 3, running=4)
    assert CallsPolicy(calls_per_replica=4).demand(told).steady == pytest.approx(8)
    assert not told.is_complete
    assert window([CallSignals(8.0)] * 9, running=10).is_complete


@given(
    load=st.floats(0, 200),
    more=st.floats(0, 100),
    short=st.floats(0, 1),
    first=st.floats(0, 10),
    count=st.integers(1, 9),
)
def test_more_load_never_asks_for_less(load: float, more: float, short: float, first: float, count: int) -> None:
    def needed(sound: float) -> float:
        signals = SpeechSignals(sound, 128, sound, sound, short * sound, first)
        demand = SpeechPolicy().demand(window([signals] * count))
        return demand.steady + demand.relief

    assert needed(load + more) >= needed(load) - 1e-9
