"""What routers ask of experts is counted exactly, decays, names the busiest tenants, and adds up over trunks."""

import threading
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from antiphon.experts.load import RoutingMeter, RowTenants, added
from antiphon.experts.table import TrunkRouting

LAYERS, EXPERTS, PER_ROW = 3, 8, 2


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Trunk:
    """Random calls, and what a dictionary counts of them."""

    meter: RoutingMeter
    dice: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    experts: Counter[tuple[int, int]] = field(default_factory=Counter)
    tenants: Counter[str] = field(default_factory=Counter)
    of_tenant: Counter[tuple[int, int, str]] = field(default_factory=Counter)

    def step(self, tenants: list[str]) -> None:
        rows = RowTenants.of(tenants)
        for layer in range(LAYERS):
            ids = self.dice.integers(0, EXPERTS, (len(tenants), PER_ROW))
            self.meter.add(layer, ids.flatten(), rows)
            for tenant, of_row in zip(tenants, ids.tolist(), strict=True):
                for expert in of_row:
                    self.experts[layer, expert] += 1
                    self.tenants[tenant] += 1
                    self.of_tenant[layer, expert, tenant] += 1


def meter(clock: Clock, **settings: int) -> RoutingMeter:
    return RoutingMeter(LAYERS, EXPERTS, half_life_seconds=10.0, now=clock, **settings)


@pytest.mark.parametrize("steps", [1, 7, 400])
def test_every_pair_is_counted_for_its_expert_and_its_tenant(steps: int) -> None:
    trunk = Trunk(meter(Clock()))
    for step in range(steps):
        trunk.step(["acme", "birds", "acme"][: 1 + step % 3])
    routing = trunk.meter.routing("trunk")
    assert {(layer, expert): routing.pairs[layer, expert] for layer, expert in trunk.experts} == trunk.experts
    assert routing.pairs.sum() == sum(trunk.experts.values())
    assert routing.tenants == trunk.tenants
    for (layer, expert), tenants in routing.hottest.items():
        assert tenants == {
            name: count for (at, of, name), count in trunk.of_tenant.items() if (at, of) == (layer, expert)
        }
    heats = [trunk.experts[key] for key in routing.hottest]
    assert heats == sorted(trunk.experts.values(), reverse=True)[: len(heats)]


def test_after_a_half_life_half_of_it_is_left() -> None:
    clock = Clock()
    asked = meter(clock)
    asked.add(1, np.array([3, 5] * 8))
    clock.seconds = 10.0
    asked.add(1, np.array([3, 3]))
    clock.seconds = 20.0
    routing = asked.routing("trunk")
    assert routing.pairs[1].tolist() == [0, 0, 0, 8 / 4 + 2 / 2, 0, 8 / 4, 0, 0]
    assert routing.tenants == {"": 5.0}


def test_who_asks_most_is_named_and_the_rest_is_one() -> None:
    trunk = Trunk(meter(Clock(), most_tenants=2))
    for _ in range(300):
        trunk.step([f"small{each}" for each in range(6)])
    for _ in range(3000):
        trunk.step(["large", "huge", "huge"])
    routing = trunk.meter.routing("trunk")
    assert set(routing.tenants) == {"", "large", "huge"}
    assert sum(routing.tenants.values()) == sum(trunk.tenants.values())
    for name in ("large", "huge"):
        assert 0.8 * trunk.tenants[name] <= routing.tenants[name] <= trunk.tenants[name]


def test_nothing_is_lost_between_threads() -> None:
    asked = meter(Clock())
    ids, rows = np.array([1, 2, 1, 7]), RowTenants.of(["acme", "birds"])

    def work() -> None:
        for _ in range(4000):
            asked.add(2, ids, rows)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        asked.routing("trunk")
    assert asked.routing("trunk").pairs[2].tolist() == [0, 16_000, 8_000, 0, 0, 0, 0, 8_000]


def test_trunks_add_up_each_by_its_latest_report_and_its_age() -> None:
    def told(trunk: str, pairs: float, **known: float) -> TrunkRouting:
        asked = np.full((LAYERS, EXPERTS), pairs, dtype=np.float32)
        half_life = known.get("half_life_seconds", 10.0)
        return TrunkRouting(
            trunk, half_life, asked, {trunk: pairs}, {(0, 1): {trunk: pairs}}, known.get("age_seconds", 0.0)
        )

    reports = [
        told("first", 8.0),
        told("first", 99.0, age_seconds=5.0),
        told("second", 4.0, age_seconds=10.0),
        # Twice the half-life counts twice as much of the same traffic.
        told("third", 6.0, half_life_seconds=20.0),
    ]
    routing = added(reports, (LAYERS, EXPERTS), 10.0)
    assert (routing.pairs == 8 + 2 + 3).all()
    assert routing.tenants == {"first": 8.0, "second": 2.0, "third": 3.0}
    assert routing.hottest == {(0, 1): {"first": 8.0, "second": 2.0, "third": 3.0}}


def test_nothing_reported_is_nothing_asked() -> None:
    assert not added((), (LAYERS, EXPERTS), 10.0).pairs.any()
