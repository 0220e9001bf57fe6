"""Records of usage reach their log, and one that cannot holds no other back."""

import asyncio

import pytest

from antiphon.errors import InternalError, Unavailable
from antiphon.tenancy import meter
from antiphon.tenancy.meter import Meter
from antiphon.tenancy.usage_log import MemoryUsageLog, UsageRecord
from tests.tenancy.test_usage import NOON, read, record


class Refusing(MemoryUsageLog):
    """Fails on one record, each time or a number of times."""

    def __init__(self, refused: str, failure: Exception, times: int = 1 << 30) -> None:
        super().__init__(100)
        self._refused, self._failure, self._times = refused, failure, times

    async def append(self, record: UsageRecord) -> None:
        if record.id == self._refused and self._times:
            self._times -= 1
            raise self._failure
        await super().append(record)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(meter, "_LONGEST_PAUSE_SECONDS", 0.002)


async def recorded(log: MemoryUsageLog) -> tuple[list[str], int]:
    """What came of three records: whose are in the log, and how many were lost."""
    lost: list[None] = []
    metered = Meter(log, 10, lambda: lost.append(None))
    for number in (1, 2, 3):
        metered.record(record(number, NOON + number))
    await metered.flush(5)
    return [found.id for found in await read(log)], len(lost)


@pytest.mark.parametrize("failure", [InternalError("refused"), ZeroDivisionError("a defect")])
async def test_a_record_that_is_always_refused_holds_no_other_back(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert await recorded(Refusing("req_1", failure)) == (["req_2", "req_3"], 1)
    assert [line.usage["id"] for line in caplog.records if hasattr(line, "usage")] == ["req_1"]


async def test_what_fails_once_is_sent_again() -> None:
    assert await recorded(Refusing("req_2", ZeroDivisionError("a defect"), times=1)) == (["req_1", "req_2", "req_3"], 0)


async def test_while_the_log_is_away_all_wait() -> None:
    log = Refusing("req_1", Unavailable("away"), times=20)
    assert await recorded(log) == (["req_1", "req_2", "req_3"], 0)


async def test_one_more_than_may_wait_is_counted_as_lost() -> None:
    lost: list[None] = []
    metered = Meter(MemoryUsageLog(100), 1, lambda: lost.append(None))
    for number in (1, 2):
        metered.record(record(number, NOON))
    await asyncio.wait_for(metered.flush(5), 5)
    assert len(lost) == 1
