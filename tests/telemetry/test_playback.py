"""A listener who plays what he gets at once."""

import pytest

from antiphon.telemetry.playback import Playback

SECOND = 24_000


def test_sound_that_comes_in_time_plays_without_a_gap() -> None:
    playback = Playback()
    for moment in (5.0, 5.2, 6.9):
        playback.deliver(SECOND, moment)
    assert playback.ends_at == pytest.approx(8.0)
    assert (playback.silences, playback.silent_seconds) == (0, 0.0)


def test_sound_that_comes_late_is_silence_before_it_and_shifts_what_follows() -> None:
    playback = Playback()
    for moment in (5.0, 6.25, 6.5, 8.75):
        playback.deliver(SECOND, moment)
    assert playback.silences == 2
    assert playback.silent_seconds == pytest.approx(0.25 + 0.5)
    assert playback.ends_at == pytest.approx(9.75)


def test_waiting_for_the_first_sound_is_no_silence() -> None:
    playback = Playback()
    assert playback.ends_at is None
    playback.deliver(SECOND, 100.0)
    assert playback.silent_seconds == 0.0
