"""Rates and percentiles of the latest seconds."""

import pytest

from antiphon.scaling.recent import RecentSum, RecentValues


def test_a_rate_is_that_of_the_latest_seconds() -> None:
    recent = RecentSum(seconds=10.0)
    for tenth in range(1000):  # a hundred seconds, 5 a second, then 20 a second
        recent.add(tenth / 10, 0.5 if tenth < 900 else 2.0)
    assert recent.rate(100.0) == pytest.approx(20.0, rel=0.11)
    assert recent.rate(105.0) == pytest.approx(10.0, rel=0.2)
    assert recent.rate(111.0) == 0.0


def test_a_rate_of_the_first_seconds_is_of_those_alone() -> None:
    recent = RecentSum(seconds=10.0)
    assert recent.rate(0.0) == 0.0
    for tenth in range(40):
        recent.add(tenth / 10, 0.5)
    assert recent.rate(4.0) == pytest.approx(5.0)


def test_the_95th_percentile_forgets_what_is_old() -> None:
    recent = RecentValues(seconds=10.0)
    for value in range(101):
        recent.add(1.0, float(value))
    assert recent.p95(2.0) == 95.0
    recent.add(12.0, 7.0)
    assert recent.p95(12.0) == 7.0
    assert recent.p95(30.0) == 0.0
