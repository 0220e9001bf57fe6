"""What a shard holds follows what it was assigned, within its room and without a call noticing."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.errors import CheckpointError, Conflict, InvalidInput, TooLarge
from antiphon.experts.table import ExpertKey
from antiphon.model.kernels.packed_experts import ExpertWeights
from services.experts.holdings import Holdings

LAYERS, EXPERTS = 3, 12
KEYS = frozenset((layer, expert) for layer in range(LAYERS) for expert in range(EXPERTS))
SOON_SECONDS = 60.0


class Reader:
    """Reads numbers that say which expert it is."""

    def __init__(self) -> None:
        self.fails = 0
        # Of a file that cannot be read.
        self.unreadable: set[ExpertKey] = set()
        self.may_read = threading.Event()
        self.may_read.set()

    def read(self, layer: int, experts: Sequence[int]) -> Mapping[int, ExpertWeights]:
        assert self.may_read.wait(SOON_SECONDS)
        if self.fails:
            self.fails -= 1
            raise CheckpointError("The file has gone.")
        if self.unreadable.intersection((layer, expert) for expert in experts):
            raise CheckpointError("The file is cut off.")
        return {expert: ExpertWeights((), torch.tensor([layer, expert])) for expert in experts}


def settled(holdings: Holdings, expected: frozenset[ExpertKey]) -> bool:
    deadline = time.monotonic() + SOON_SECONDS
    while holdings.held != expected and time.monotonic() < deadline:
        time.sleep(0.001)
    return holdings.held == expected


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def holdings(reader: Reader) -> Iterator[Holdings]:
    made = Holdings(reader, KEYS, capacity=20)
    made.load_now(frozenset(key for key in KEYS if key[0] == 0))
    made.start()
    yield made
    reader.may_read.set()
    made.close()


def test_what_is_assigned_is_held_soon(holdings: Holdings) -> None:
    wanted = frozenset({(0, 1), (1, 5), (2, 11)})
    pending = holdings.assign(1, wanted)
    assert pending.loading <= 2
    assert settled(holdings, wanted)
    assert holdings.of_layer(2).experts[11].down.tolist() == [2, 11]
    assert holdings.pending().loading == holdings.pending().dropping == 0


def test_what_is_new_comes_before_what_is_old_goes(holdings: Holdings, reader: Reader) -> None:
    before = holdings.held
    reader.may_read.clear()
    pending = holdings.assign(1, frozenset({(1, 1)}))
    assert (pending.loading, pending.dropping) == (1, 12)
    assert holdings.held == before
    reader.may_read.set()
    assert settled(holdings, frozenset({(1, 1)}))


def test_a_call_keeps_what_it_found(holdings: Holdings) -> None:
    found = holdings.of_layer(0)
    holdings.assign(1, frozenset())
    assert settled(holdings, frozenset())
    assert found.experts[3].down.tolist() == [0, 3]
    assert not holdings.of_layer(0).experts


def test_what_is_given_up_lingers_until_trunks_know_of_it(reader: Reader) -> None:
    holdings = Holdings(reader, KEYS, capacity=20, linger_seconds=0.3)
    first, second = frozenset({(0, 0)}), frozenset({(1, 1)})
    holdings.load_now(first)
    holdings.start()
    began = time.monotonic()
    holdings.assign(1, second)
    assert settled(holdings, first | second)
    assert holdings.staying == second
    assert settled(holdings, second)
    assert time.monotonic() - began >= 0.3
    holdings.assign(2, first)
    holdings.assign(3, second | first)
    assert settled(holdings, second | first)
    holdings.close()


def test_older_keepers_are_not_obeyed(holdings: Holdings) -> None:
    before = holdings.held
    holdings.assign(7, None)
    assert holdings.held == before
    with pytest.raises(Conflict, match="expected 7 or more"):
        holdings.assign(6, frozenset())
    holdings.assign(7, frozenset({(0, 0)}))
    assert settled(holdings, frozenset({(0, 0)}))


def test_what_cannot_be_held_is_refused(holdings: Holdings) -> None:
    before = holdings.held
    with pytest.raises(InvalidInput, match="expert 12 of layer 0"):
        holdings.assign(1, frozenset({(0, 12)}))
    with pytest.raises(TooLarge, match="at most 20"):
        holdings.assign(1, KEYS)
    assert holdings.epoch == 0
    assert holdings.held == before


def test_a_file_that_cannot_be_read_for_a_while_is_read_later(
    holdings: Holdings, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.experts.holdings._RETRY_SECONDS", 0.01)
    reader.fails = 2
    holdings.assign(1, frozenset({(2, 2)}))
    assert settled(holdings, frozenset({(2, 2)}))
    holdings.check()


def test_a_file_that_cannot_be_read_keeps_nothing_else_back(
    holdings: Holdings, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what is read beside it, nor what comes after it, nor what is given up."""
    monkeypatch.setattr("services.experts.holdings._RETRY_SECONDS", 0.01)
    reader.unreadable = {(1, 2)}
    wanted = frozenset({(1, 1), (1, 2), (1, 3), (2, 5), (0, 7)})
    holdings.assign(1, wanted)
    assert settled(holdings, wanted - reader.unreadable)
    assert holdings.pending().loading == 1
    holdings.assign(2, wanted | {(2, 6)})
    assert settled(holdings, (wanted | {(2, 6)}) - reader.unreadable)
    reader.unreadable = set()
    assert settled(holdings, wanted | {(2, 6)})
    holdings.check()


@settings(max_examples=30, deadline=None)
@given(assignments=st.lists(st.frozensets(st.sampled_from(sorted(KEYS)), max_size=20), min_size=1, max_size=6))
def test_any_assignments_end_with_the_last_and_never_need_more_room(
    assignments: list[frozenset[ExpertKey]],
) -> None:
    holdings = Holdings(Reader(), KEYS, capacity=20)
    most = 0
    replace = holdings._replace

    def counted(layer: int, experts: Mapping[int, ExpertWeights]) -> None:
        nonlocal most
        replace(layer, experts)
        most = max(most, len(holdings.held))

    holdings._replace = counted  # type: ignore[method-assign]
    holdings.start()
    for epoch, wanted in enumerate(assignments):
        holdings.assign(epoch, wanted)
    assert settled(holdings, assignments[-1])
    holdings.close()
    assert most <= 20
