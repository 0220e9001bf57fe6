"""Work that nobody waits for yet: begun only where there is room to spare, and in nobody's way."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from antiphon.telemetry.metrics import Metrics
from services.gateway.config import GatewaySettings
from services.gateway.turns.gate import TurnGate
from tests.gateway.turns import a_watch


def a_gate(settings: GatewaySettings) -> TurnGate:
    return TurnGate(settings.model_copy(update={"concurrent_turns": 4}), Metrics())


def most(may_begin: Callable[[], bool], begin: Callable[[], None]) -> int:
    count = 0
    while may_begin() and count < 100:
        begin()
        count += 1
    return count


def begin_ahead(gate: TurnGate, begun: ExitStack) -> None:
    begun.enter_context(gate.ahead())


def test_it_takes_a_share_of_the_places_at_most(settings: GatewaySettings) -> None:
    for share, expected in ((1.0, 4), (0.5, 2), (0.0, 0)):
        gate = a_gate(settings)
        with ExitStack() as begun:
            assert most(partial(gate.has_room_ahead, share), partial(begin_ahead, gate, begun)) == expected
        assert gate.has_room_ahead()


def test_turns_count_against_it_and_it_counts_against_no_turn(settings: GatewaySettings) -> None:
    gate = a_gate(settings)
    with ExitStack() as begun:
        for _ in range(4):
            begun.enter_context(gate.ahead())
        for _ in range(4):
            begun.enter_context(gate.turn(a_watch(), ""))
        assert gate.turns == 4
    with ExitStack() as begun:
        for _ in range(2):
            begun.enter_context(gate.turn(a_watch(), ""))
        assert gate.has_room_ahead()
        assert not gate.has_room_ahead(0.5)


async def test_a_gateway_that_stops_begins_nothing_and_waits_for_none(settings: GatewaySettings) -> None:
    gate = a_gate(settings)
    with gate.ahead():
        await gate.close(drain_seconds=60)
        assert not gate.has_room_ahead()
