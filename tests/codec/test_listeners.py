"""What the codec tells of those who hear it."""

import time

import pytest

from services.codec.listeners import Listeners


def test_who_waits_with_little_sound_left_is_about_to_hear_silence() -> None:
    listeners, now = Listeners(places=8), time.monotonic()
    begun = [listeners.join() for _ in range(3)]
    for listener in begun:
        listener.asks(now)
        listener.gets(24_000)
    begun[0].asks(now - 1.0)  # silence already
    begun[1].asks(now + 100.0)  # in plenty
    listeners.join().asks(now)  # has heard nothing yet
    signals = listeners.signals()
    assert (signals.streams, signals.places, signals.playing, signals.short_leads) == (4, 8, 3, 1)


def test_only_the_first_sound_counts_as_first_and_those_who_left_no_more() -> None:
    listeners = Listeners(places=8)
    listener = listeners.join()
    listener.asks(0.0)
    time.sleep(0.05)
    listener.gets(1920)
    first = listeners.signals().first_p95_seconds
    assert first >= 0.05
    listener.asks(0.0)
    listener.gets(1920)
    assert listeners.signals().first_p95_seconds == first
    assert listeners.signals().sound_rate == pytest.approx(2 * 0.08)  # in its first second
    listeners.leave(listener)
    assert listeners.signals().streams == 0
