"""A full gateway refuses those first who have the most turns open."""

from contextlib import ExitStack

import pytest

from antiphon.errors import AtCapacity
from antiphon.telemetry.metrics import Metrics
from services.gateway.config import GatewaySettings
from services.gateway.turns.gate import TurnGate
from tests.gateway.turns import a_watch


@pytest.fixture
def gate(settings: GatewaySettings) -> TurnGate:
    return TurnGate(settings.model_copy(update={"concurrent_turns": 8}), Metrics())


def test_a_tenant_who_has_taken_all_places_keeps_no_other_out(gate: TurnGate) -> None:
    with ExitStack() as opened:
        for _ in range(8):
            opened.enter_context(gate.turn(a_watch(), "flood"))
        with pytest.raises(AtCapacity):
            gate.require_room("flood")
        opened.enter_context(gate.turn(a_watch(), "quiet"))
        opened.enter_context(gate.turn(a_watch(), "quiet"))
        with pytest.raises(AtCapacity):
            gate.require_room("quiet")
    assert gate.turns == 0


def test_tenants_share_the_places_that_come_free(gate: TurnGate) -> None:
    with ExitStack() as quiet, ExitStack() as flood:
        turns = [ExitStack() for _ in range(8)]
        for turn in turns:
            flood.enter_context(turn).enter_context(gate.turn(a_watch(), "flood"))
        for turn in turns[:4]:
            turn.close()
            quiet.enter_context(gate.turn(a_watch(), "quiet"))
        with pytest.raises(AtCapacity):
            gate.require_room("quiet")
        with pytest.raises(AtCapacity):
            gate.require_room("flood")


def test_who_was_here_a_moment_ago_finds_his_share(gate: TurnGate) -> None:
    with ExitStack() as flood:
        with gate.turn(a_watch(), "quiet"):
            pass
        for _ in range(4):
            flood.enter_context(gate.turn(a_watch(), "flood"))
        with pytest.raises(AtCapacity):
            gate.require_room("flood")
        gate.require_room("quiet")


def test_half_of_the_places_are_for_whoever_asks(gate: TurnGate) -> None:
    with ExitStack() as opened:
        for number in range(20):
            with gate.turn(a_watch(), f"tenant {number}"):
                pass
        for _ in range(4):
            opened.enter_context(gate.turn(a_watch(), "busy"))
        with pytest.raises(AtCapacity):
            gate.require_room("busy")


def test_alone_it_is_full_at_its_limit(gate: TurnGate) -> None:
    with ExitStack() as opened:
        for _ in range(8):
            opened.enter_context(gate.turn(a_watch(), "only"))
        with pytest.raises(AtCapacity):
            gate.require_room("only")
