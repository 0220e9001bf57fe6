"""On whose behalf a request runs, as it comes over the wire."""

import pytest

from antiphon.engine.sequence import Share
from antiphon.errors import InvalidInput
from antiphon.v1.generation_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, Scheduling
from antiphon.wire.generation import read_share


def test_who_says_nothing_is_one_tenant_among_others() -> None:
    assert read_share(Scheduling()) == Share("", 1.0, is_batch=False)


def test_tenant_weight_and_priority_are_read() -> None:
    assert read_share(Scheduling(tenant="acme", weight=2.5, priority=PRIORITY_BATCH)) == Share("acme", 2.5, True)
    assert read_share(Scheduling(tenant="acme", priority=PRIORITY_INTERACTIVE)) == Share("acme", 1.0, False)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 1e9, 1e-9])
def test_a_weight_that_would_break_the_sharing_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match=r"scheduling\.weight: expected 0\.001 to 1000"):
        read_share(Scheduling(tenant="acme", weight=weight))


def test_a_tenant_of_any_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"scheduling\.tenant: expected at most 128 characters; came 129"):
        read_share(Scheduling(tenant="x" * 129))
