"""Calls are computed one at a time, in the order in which they came, and never after their time."""

import threading
import time

import pytest

from antiphon.errors import DeadlineExceeded
from services.experts.turns import Turns

LONG_SECONDS = 60.0


def waiting(turns: Turns, count: int) -> None:
    """Until so many wait."""
    deadline = time.monotonic() + LONG_SECONDS
    while turns.waiting < count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert turns.waiting == count


def test_who_came_first_goes_first() -> None:
    turns, order, threads = Turns(), list[int](), list[threading.Thread]()
    turns.take(time.monotonic() + LONG_SECONDS)

    def come(number: int) -> None:
        turns.take(time.monotonic() + LONG_SECONDS)
        order.append(number)
        turns.give()

    for number in range(20):
        threads.append(threading.Thread(target=come, args=(number,)))
        threads[-1].start()
        waiting(turns, number + 1)
    turns.give()
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_who_is_too_late_is_sent_away_and_holds_up_nobody() -> None:
    turns = Turns()
    turns.take(time.monotonic() + LONG_SECONDS)
    with pytest.raises(DeadlineExceeded):
        turns.take(time.monotonic() + 0.01)
    turns.give()
    with pytest.raises(DeadlineExceeded):
        turns.take(time.monotonic() - 1)
    turns.take(time.monotonic() + LONG_SECONDS)
    turns.give()


def test_many_at_once_never_share_a_turn() -> None:
    turns, inside, most, served, late = Turns(), 0, 0, 0, 0
    counted = threading.Lock()

    def come(number: int) -> None:
        nonlocal inside, most, served, late
        for turn in range(50):
            seconds = LONG_SECONDS if (number + turn) % 3 else 0.0002
            try:
                turns.take(time.monotonic() + seconds)
            except DeadlineExceeded:
                with counted:
                    late += 1
                continue
            inside += 1
            most = max(most, inside)
            time.sleep(0)
            inside -= 1
            served += 1
            turns.give()

    threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_SECONDS)
    assert most == 1
    assert served + late == 400
    assert turns.waiting == 0
