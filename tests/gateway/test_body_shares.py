"""One tenant's uploads fill no more of the room for bodies than leaves some to others."""

from contextlib import ExitStack

import pytest

from antiphon.errors import AtCapacity
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from services.gateway.config import GatewaySettings
from services.gateway.http.request_body import BodyRoom


@pytest.fixture
def room(settings: GatewaySettings) -> BodyRoom:
    return BodyRoom(settings.model_copy(update={"held_body_bytes": 800}))


def test_a_tenant_whose_bodies_come_slowly_keeps_no_other_out(room: BodyRoom) -> None:
    with ExitStack() as opened:
        slow = [opened.enter_context(room.share("flood")) for _ in range(7)]
        for share in slow:
            share.grow(100)
        with pytest.raises(AtCapacity):
            opened.enter_context(room.share("flood")).grow(1)
        opened.enter_context(room.share("quiet")).grow(60)
        opened.enter_context(room.share("quieter")).grow(40)
        with pytest.raises(AtCapacity):
            opened.enter_context(room.share("late")).grow(1)


def test_what_is_given_back_is_there_again(room: BodyRoom) -> None:
    for _ in range(3):
        with room.share("only") as share:
            share.grow(700)
            with pytest.raises(AtCapacity):
                share.grow(1)


def test_callers_without_a_key_are_alone_and_have_all_of_it(room: BodyRoom) -> None:
    with room.share(ANONYMOUS_TENANT) as share:
        share.grow(800)
        with pytest.raises(AtCapacity):
            share.grow(1)
