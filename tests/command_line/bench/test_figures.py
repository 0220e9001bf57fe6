"""The statistics of a run are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.command_line.answer_stream import StageFigures
from services.command_line.bench.figures import Gains, RunFigures, Spread, TurnFigures, mean_parts, summarise

POSITIVE = st.floats(0.01, 1e6)


def turn(scale: float = 1.0, first_packet: dict[str, float] | None = None) -> TurnFigures:
    talker = StageFigures(queue_ms=100, first_output_ms=60, total_ms=1640, steps=46)
    return TurnFigures(
        first_text_ms=100 * scale,
        first_audio_ms=200 * scale,
        last_audio_ms=1500 * scale,
        audio_seconds=3.0,
        text_tokens=8,
        frames=38,
        first_packet_ms=first_packet or {},
        stages={"talker": talker},
    )


def test_a_stage_keeps_its_pace_after_its_first_output() -> None:
    assert turn().talker_frames_per_second == pytest.approx(37 / 1.48)
    assert turn().thinker_tokens_per_second is None
    assert summarise("x", 1, [turn()], failed=0, wall_seconds=1).talker_frames_per_second == pytest.approx(25)


def test_real_time_factor_is_time_until_the_last_sound_over_its_length() -> None:
    assert turn().real_time_factor == 0.5


def test_spread_interpolates_between_neighbours() -> None:
    assert Spread.of([4.0, 1.0, 3.0, 2.0]) == Spread(2.5, pytest.approx(3.85))
    assert Spread.of([7.0]) == Spread(7.0, 7.0)


@given(st.lists(POSITIVE, min_size=1, max_size=50))
def test_spread_lies_within_the_values(values: list[float]) -> None:
    spread = Spread.of(values)
    assert min(values) <= spread.p50 <= spread.p95 <= max(values)


def test_a_run_divides_what_was_made_by_its_time() -> None:
    run = summarise("antiphon", 2, [turn(), turn(3.0)], failed=1, wall_seconds=4.0)
    assert (run.turns, run.failed, run.concurrency) == (2, 1, 2)
    assert run.tokens_per_second == 4.0
    assert run.frames_per_second == 19.0
    assert run.first_audio_ms.p50 == 400
    assert run.real_time_factor.p50 == 1.0


def test_mean_parts_add_up_to_the_mean_total() -> None:
    turns = [{"prepare": 1.0, "thinker": 9.0, "total": 10.0}, {"prepare": 3.0, "codec": 17.0, "total": 20.0}, {}]
    parts = mean_parts(turns)
    assert parts == {"prepare": 2.0, "encoders": 0.0, "thinker": 4.5, "talker": 0.0, "codec": 8.5, "emit": 0.0}
    assert sum(parts.values()) == 15.0


def test_without_parts_there_is_no_table() -> None:
    assert mean_parts([{}, {}]) == {}


def run(scale: float) -> RunFigures:
    return summarise("x", 1, [turn(scale)], failed=0, wall_seconds=1.5 * scale)


@given(POSITIVE)
def test_gains_over_itself_are_one(scale: float) -> None:
    assert set(Gains.over(run(scale), run(scale)).named().values()) == {1.0}


def test_gains_above_one_are_better_everywhere() -> None:
    assert list(Gains.over(run(3.0), run(1.0)).named().values()) == pytest.approx([3.0] * 5)
