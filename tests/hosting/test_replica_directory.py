"""The least loaded replica is found, also while reports are old, late or missing; and the policy that scales them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from antiphon.errors import Unavailable
from antiphon.hosting import replica_directory
from antiphon.hosting.replica_directory import ReplicaDirectory, ReplicaReport
from antiphon.telemetry.names import StageName


@dataclass
class Replicas:
    """What the replicas of every stage would answer."""

    reports: list[ReplicaReport] = field(default_factory=list)
    asked: int = 0
    delay_seconds: float = 0.0
    failure: Exception | None = None

    async def ask(self, stage: StageName) -> Sequence[ReplicaReport]:
        self.asked += 1
        await asyncio.sleep(self.delay_seconds)
        if self.failure is not None:
            raise self.failure
        return list(self.reports)


async def test_calls_go_where_the_load_is_least_and_spread_between_reports() -> None:
    replicas = Replicas([ReplicaReport("a", 3), ReplicaReport("b", 0, waiting=2), ReplicaReport("c", 1)])
    directory = ReplicaDirectory(replicas.ask)
    sent = Counter([await directory.locate("talker") for _ in range(9)])
    assert sent == {"a": 2, "b": 3, "c": 4}
    assert replicas.asked == 1


async def test_a_draining_replica_gets_nothing_new() -> None:
    replicas = Replicas([ReplicaReport("a", is_draining=True), ReplicaReport("b", 9)])
    directory = ReplicaDirectory(replicas.ask)
    assert {await directory.locate("talker") for _ in range(5)} == {"b"}


async def test_a_failed_address_is_avoided_after_asking_again() -> None:
    replicas = Replicas([ReplicaReport("a")])
    directory = ReplicaDirectory(replicas.ask)
    assert await directory.locate("talker") == "a"
    replicas.reports = [ReplicaReport("a"), ReplicaReport("b", 5)]
    assert await directory.locate("talker", avoiding=["a"]) == "b"
    assert await directory.locate("talker", avoiding=["b"]) == "a"
    assert replicas.asked == 2, "while one is known that has not failed, nobody waits for an answer"
    replicas.reports = [ReplicaReport("a")]
    assert await directory.locate("talker", avoiding=["a", "b"]) == "a"


async def test_a_conversation_stays_where_it_was_until_that_is_gone_or_full() -> None:
    replicas = Replicas([ReplicaReport(name) for name in "abcd"])
    directory = ReplicaDirectory(replicas.ask)
    homes = {key: await directory.locate("thinker", affinity=key) for key in (b"1", b"2", b"3", b"4", b"5", b"6")}
    assert len(set(homes.values())) > 1
    replicas.reports = [ReplicaReport(name) for name in "abc"]
    await directory.locate("thinker", avoiding="abcd")
    for key, home in homes.items():
        assert await directory.locate("thinker", affinity=key) == home or home == "d"
    home = homes[b"1"] if homes[b"1"] != "d" else await directory.locate("thinker", affinity=b"1")
    replicas.reports = [ReplicaReport(name, active_calls=40 if name == home else 0) for name in "abc"]
    await directory.locate("thinker", avoiding="abcd")
    assert await directory.locate("thinker", affinity=b"1") != home


async def test_whoever_was_too_busy_to_report_takes_over_at_once_when_another_dies() -> None:
    replicas = Replicas([ReplicaReport("a"), ReplicaReport("busy", 3)])
    directory = ReplicaDirectory(replicas.ask, renew_seconds=0.02)
    await directory.locate("talker")
    replicas.reports = [ReplicaReport("a")]
    await asyncio.sleep(0.1)
    replicas.delay_seconds = 60.0  # as Serve, who asks the dead one, too
    async with asyncio.timeout(5):
        assert await directory.locate("talker", avoiding=["a"]) == "busy"
    await directory.close()


async def test_whoever_is_silent_for_long_takes_over_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_directory, "_BELIEVED_SECONDS", 0.05)
    replicas = Replicas([ReplicaReport("a"), ReplicaReport("gone")])
    directory = ReplicaDirectory(replicas.ask, renew_seconds=0.02)
    await directory.locate("talker")
    replicas.reports = [ReplicaReport("a")]
    await asyncio.sleep(0.5)
    assert await directory.locate("talker", avoiding=["a"]) == "a"
    await directory.close()


async def test_no_call_waits_for_reports_after_the_first() -> None:
    replicas = Replicas([ReplicaReport("a")])
    directory = ReplicaDirectory(replicas.ask, renew_seconds=0.02)
    await directory.locate("talker")
    replicas.delay_seconds, replicas.reports = 0.2, [ReplicaReport("b")]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(0.05):
        assert await directory.locate("talker") == "a"
    await asyncio.sleep(0.3)
    assert await directory.locate("talker") == "b"
    await directory.close()
    asked = replicas.asked
    await asyncio.sleep(0.3)
    assert replicas.asked == asked


async def test_a_directory_that_cannot_ask_keeps_what_it_knows() -> None:
    replicas = Replicas([ReplicaReport("a")])
    directory = ReplicaDirectory(replicas.ask, renew_seconds=0.01)
    await directory.locate("talker")
    replicas.failure = RuntimeError("the controller is away")
    await asyncio.sleep(0.1)
    assert await directory.locate("talker") == "a"
    assert await directory.locate("talker", avoiding=["b"]) == "a"
    replicas.failure, replicas.reports = None, [ReplicaReport("c")]
    await asyncio.sleep(0.1)
    assert await directory.locate("talker") == "c"
    await directory.close()


@pytest.mark.parametrize("failure", [TimeoutError("one is silent"), RuntimeError("the controller is away"), None])
async def test_addresses_stay_known_while_nobody_can_be_asked(failure: Exception | None) -> None:
    replicas = Replicas(failure=failure)
    directory = ReplicaDirectory(replicas.ask)
    assert not await directory.addresses("experts")
    replicas.failure, replicas.reports = None, [ReplicaReport("a"), ReplicaReport("b", is_draining=True)]
    assert await directory.addresses("experts") == ["a", "b"]
    replicas.failure, replicas.reports = failure, []
    assert await directory.addresses("experts") == ["a", "b"]
    replicas.failure, replicas.reports = None, [ReplicaReport("c")]
    assert await directory.addresses("experts") == ["c"]


async def test_replicas_that_are_too_busy_to_report_are_called_still() -> None:
    replicas = Replicas([ReplicaReport("a")])
    directory = ReplicaDirectory(replicas.ask, renew_seconds=0.01)
    await directory.locate("talker")
    replicas.reports = []
    await asyncio.sleep(0.1)
    assert await directory.locate("talker") == "a"
    await directory.close()


async def test_no_replica_is_unavailable_and_comes_back_by_itself() -> None:
    replicas = Replicas()
    directory = ReplicaDirectory(replicas.ask)
    with pytest.raises(Unavailable, match="No replica of the codec"):
        await directory.locate("codec")
    replicas.reports = [ReplicaReport("a")]
    assert await directory.locate("codec", avoiding=["gone"]) == "a"


async def test_one_question_at_a_time_for_many_callers() -> None:
    replicas = Replicas([ReplicaReport("a")], delay_seconds=0.05)
    directory = ReplicaDirectory(replicas.ask)
    assert await asyncio.gather(*(directory.locate("talker") for _ in range(20))) == ["a"] * 20
    assert replicas.asked <= 2  # the first was under way before the others wanted it
