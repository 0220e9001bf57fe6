"""Tenants share steps, places and pages, however many requests one of them sends."""

from dataclasses import dataclass, field

import pytest

from antiphon.engine.fairness import VirtualCounters
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import Sequence, Share
from antiphon.errors import AtCapacity

FLOOD, QUIET = Share("flood"), Share("quiet")


@dataclass
class Machine:
    """Steps that take the longer the more sequences go on in them, in simulated time."""

    limits: SchedulerLimits
    pages: int = 4000
    step_seconds: float = 0.004
    row_seconds: float = 0.0005
    decode_seconds: float = 0.003
    now: float = 0.0
    # Rows, and of them outputs, by tenant.
    computed: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    first: dict[Sequence[str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler: Scheduler[str] = Scheduler(self.limits, PagePool(self.pages, 4))

    def send(self, share: Share, prompt_rows: int = 40, outputs: int = 60) -> Sequence[str]:
        sequence = Sequence(share.tenant, prompt_rows, prompt_rows + outputs - 1, share=share)
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> list[str]:
        """Whose sequences took part."""
        plan = self.scheduler.schedule()
        decodes = sum(part.row_count == 1 for part in plan)
        rows = sum(part.row_count for part in plan)
        self.now += self.step_seconds + decodes * self.decode_seconds + (rows - decodes) * self.row_seconds
        for part in plan:
            self.scheduler.advance(part)
            self.computed[part.sequence.request] = self.computed.get(part.sequence.request, 0) + part.row_count
            if not part.samples:
                continue
            sequence = part.sequence
            self.first.setdefault(sequence, self.now)
            self.given[sequence.request] = self.given.get(sequence.request, 0) + 1
            sequence.emitted += 1
            sequence.taken += 1
            if sequence.total_rows > sequence.max_rows:
                self.scheduler.remove(sequence)
        return [part.sequence.request for part in plan]

    def service(self, tenant: str) -> int:
        return self.computed.get(tenant, 0) + 2 * self.given.get(tenant, 0)

    def time_to_first(self, share: Share) -> float:
        sequence, sent = self.send(share), self.now
        while sequence not in self.first:
            self.step()
        return self.first[sequence] - sent


def limits(shared: int | None = 8, running: int = 64, waiting: int = 256, rows: int = 128) -> SchedulerLimits:
    return SchedulerLimits(running, waiting, rows, shared)


def test_a_newcomer_is_answered_at_once_beside_a_tenant_who_sent_hundreds() -> None:
    calm, flooded = Machine(limits()), Machine(limits())
    for _ in range(4):
        calm.send(FLOOD)
    for _ in range(180):
        flooded.send(FLOOD)
    for machine in (calm, flooded):
        for _ in range(20):
            machine.step()
    assert flooded.time_to_first(QUIET) < 2 * calm.time_to_first(QUIET)


def test_without_sharing_the_same_newcomer_waits_for_all_of_them() -> None:
    """What the counters are for: named by one tenant, he is the last of two hundred."""
    flooded = Machine(limits())
    for _ in range(180):
        flooded.send(FLOOD)
    for _ in range(20):
        flooded.step()
    assert flooded.time_to_first(FLOOD) > 1.0


def test_two_tenants_are_given_as_much_as_each_other_whatever_they_send() -> None:
    machine = Machine(limits(shared=4, waiting=1000))
    for _ in range(200):
        machine.send(FLOOD, outputs=40)
    for _ in range(50):
        machine.send(QUIET, outputs=40)
    while machine.given.get("quiet", 0) < 1500:
        machine.step()
    assert machine.service("flood") == pytest.approx(machine.service("quiet"), rel=0.02)


def test_a_tenant_of_twice_the_weight_is_given_twice_as_much() -> None:
    machine = Machine(limits(shared=6, waiting=1000))
    for _ in range(100):
        machine.send(Share("heavy", weight=2.0), outputs=40)
        machine.send(Share("light"), outputs=40)
    while machine.given.get("light", 0) < 600:
        machine.step()
    assert machine.service("heavy") == pytest.approx(2 * machine.service("light"), rel=0.02)


def test_batch_work_takes_what_interactive_requests_leave() -> None:
    machine = Machine(limits(shared=2, running=16, rows=64))
    for _ in range(10):
        machine.send(Share("nightly", is_batch=True))
    for _ in range(5):
        machine.step()
    live = machine.send(QUIET, prompt_rows=4)
    machine.step()
    while live.phase != "ended":
        assert "quiet" in machine.step()
    assert machine.given["nightly"] > 0


def test_a_step_holds_everybody_while_the_reader_of_the_other_tenant_is_behind() -> None:
    machine = Machine(limits(shared=2))
    idle = Sequence("quiet", 4, 40, max_untaken=1, share=QUIET)
    idle.emitted = 1
    machine.scheduler.add(idle)
    for _ in range(10):
        machine.send(FLOOD, prompt_rows=4)
    machine.step()
    assert machine.step() == ["flood"] * 10


def test_the_last_eighth_of_the_queue_is_for_tenants_who_have_little_in_it() -> None:
    machine = Machine(limits(running=8, waiting=16))
    for _ in range(14):
        machine.send(FLOOD)
    with pytest.raises(AtCapacity):
        machine.send(FLOOD)
    machine.send(QUIET)
    anonymous = Machine(limits(running=8, waiting=16))
    for _ in range(16):
        anonymous.send(Share())
    with pytest.raises(AtCapacity):
        anonymous.send(Share())


def test_one_who_holds_more_than_its_share_of_pages_gives_them_back_first() -> None:
    machine = Machine(limits(shared=None, running=16), pages=40)
    flood = [machine.send(FLOOD, prompt_rows=16, outputs=60) for _ in range(6)]
    for _ in range(3):
        machine.step()
    quiet = machine.send(QUIET, prompt_rows=16, outputs=30)
    while quiet.phase != "ended":
        machine.step()
        assert quiet.reached_rows == 0, "it never lost its pages"
    assert machine.scheduler.preemptions > 0
    while any(each.phase != "ended" for each in flood):
        machine.step()


def test_nobody_saves_service_up_while_away() -> None:
    counters = VirtualCounters()
    counters.arrive(FLOOD)
    counters.charge(FLOOD, 1000)
    counters.arrive(QUIET)
    assert counters.served("quiet") == 1000
    counters.charge(QUIET, 10)
    counters.depart(QUIET)
    counters.charge(FLOOD, 500)
    counters.arrive(QUIET)
    assert counters.served("quiet") == 1500


def test_nobody_sheds_what_it_was_given_by_leaving() -> None:
    counters = VirtualCounters()
    counters.arrive(FLOOD)
    counters.arrive(QUIET)
    counters.charge(FLOOD, 1000)
    counters.depart(FLOOD)
    counters.arrive(FLOOD)
    assert counters.served("flood") == 1000
    assert counters.served("quiet") == 0


def test_tenants_who_left_are_forgotten_once_they_are_level() -> None:
    counters = VirtualCounters()
    counters.arrive(QUIET)
    for number in range(10_000):
        share = Share(f"tenant {number}")
        counters.arrive(share)
        counters.charge(share, number)
        counters.depart(share)
    assert len(counters._served) <= 4097


def test_who_waits_for_pages_holds_up_nobody_of_another_tenant() -> None:
    machine = Machine(limits(shared=None), pages=40)
    first = machine.send(FLOOD, prompt_rows=60, outputs=40)
    machine.step()
    large = machine.send(FLOOD, prompt_rows=140, outputs=4)
    behind = machine.send(FLOOD, prompt_rows=4, outputs=4)
    small = machine.send(QUIET, prompt_rows=8, outputs=4)
    machine.scheduler.counters.charge(QUIET, 1000)  # whose turn is the last
    machine.step()
    assert (first.phase, large.phase, behind.phase, small.phase) == ("running", "waiting", "waiting", "running")


def test_who_waits_for_pages_is_passed_by_as_many_as_it_wants_itself_and_no_more() -> None:
    machine = Machine(limits(shared=None), pages=40)
    machine.send(FLOOD, prompt_rows=60, outputs=60)
    machine.step()
    large = machine.send(FLOOD, prompt_rows=120, outputs=4)
    passed = 0
    while large.phase == "waiting":
        if not any(each.share == QUIET for each in machine.scheduler.waiting):
            machine.send(QUIET, prompt_rows=20, outputs=4)
        machine.step()
        passed = max(passed, large.passed_pages)
    assert passed == 30, "pages of 4 rows"
