"""First outputs have the cores for themselves while they are computed; whoever stands back does so once."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from antiphon.engine.batcher import Batcher
from antiphon.engine.compute_gate import OPEN, ComputeGate, Urgency, gate_of, gated
from antiphon.engine.sequence import Sequence, Share, Slice

FLOOD, QUIET = Share("flood"), Share("quiet")
# For what must not happen; and for what must, however busy the machine is.
_A_MOMENT, _LONG = 0.05, 10.0


@pytest.fixture
def gate() -> ComputeGate:
    """With room for one step while a first output is computed."""
    return ComputeGate(most_beside_first=1)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def begun(pool: ThreadPoolExecutor, gate: ComputeGate, urgency: Urgency) -> "Future[None]":
    """Done when a step of another stage has begun and ended."""

    def step() -> None:
        with gate.step(urgency):
            return

    return pool.submit(step)


def waits(step: "Future[None]") -> bool:
    return not threading.Event().wait(_A_MOMENT) and not step.done()


def test_no_step_begins_beside_a_first_output(gate: ComputeGate, pool: ThreadPoolExecutor) -> None:
    with gate.step("first"):
        step = begun(pool, gate, "ordinary")
        assert waits(step)
    step.result(_LONG)


def test_as_many_begin_beside_it_as_there_are_cores_left(pool: ThreadPoolExecutor) -> None:
    gate = ComputeGate(most_beside_first=3)
    with gate.step("first"), gate.step("ordinary"):
        begun(pool, gate, "ordinary").result(_LONG)
        with gate.step("ordinary"):
            step = begun(pool, gate, "ordinary")
            assert waits(step)
        step.result(_LONG)


def test_without_first_outputs_all_begin_at_once(gate: ComputeGate, pool: ThreadPoolExecutor) -> None:
    with ExitStack() as stages:
        for _ in range(6):
            stages.enter_context(gate.step("ordinary"))
        begun(pool, gate, "ordinary").result(_LONG)


def test_speech_about_to_end_and_other_first_outputs_wait_for_nobody(
    gate: ComputeGate, pool: ThreadPoolExecutor
) -> None:
    with gate.step("first"), gate.step("ending"):
        begun(pool, gate, "ending").result(_LONG)
        begun(pool, gate, "first").result(_LONG)


def test_who_stands_back_does_so_for_those_only_who_were_there_before(
    gate: ComputeGate, pool: ThreadPoolExecutor
) -> None:
    with ExitStack() as later:
        with gate.step("first"):
            step = begun(pool, gate, "ordinary")
            assert waits(step)
            later.enter_context(gate.step("first"))
        step.result(_LONG)


def test_a_step_that_fails_lets_the_others_in(gate: ComputeGate, pool: ThreadPoolExecutor) -> None:
    with pytest.raises(RuntimeError), gate.step("first"):
        raise RuntimeError
    begun(pool, gate, "ordinary").result(_LONG)


def test_a_first_output_that_never_ends_holds_nobody_up_for_ever(pool: ThreadPoolExecutor) -> None:
    gate = ComputeGate(most_beside_first=1, most_wait_seconds=4 * _A_MOMENT)
    with gate.step("first"):
        step = begun(pool, gate, "ordinary")
        assert waits(step)
        step.result(_LONG)


def test_who_finds_a_first_output_late_already_begins_at_once(pool: ThreadPoolExecutor) -> None:
    """All of them together, not each after a wait of its own."""
    gate = ComputeGate(most_beside_first=1, most_wait_seconds=4 * _A_MOMENT)
    with gate.step("first"):
        begun(pool, gate, "ordinary").result(_LONG)
        began = time.monotonic()
        for _ in range(100):
            begun(pool, gate, "ordinary").result(_LONG)
        assert time.monotonic() - began < 10 * 4 * _A_MOMENT
        with gate.step("first"):
            assert waits(begun(pool, gate, "ordinary"))


def slice_of(share: Share, *, emitted: int = 0, lead_seconds: float = 0.0) -> Slice[str]:
    sequence = Sequence("request", 4, 20, share=share, output_seconds=0.08)
    sequence.emitted = sequence.sampled_rows = emitted
    sequence.lead_seconds = lead_seconds
    return Slice(sequence, 0, 1, True, [])


class Told:
    """A gate that writes down what it is told."""

    def __init__(self, gate: ComputeGate) -> None:
        self._gate, self.urgencies = gate, list[Urgency]()
        self.arrive, self.depart, self.is_outnumbered = gate.arrive, gate.depart, gate.is_outnumbered

    def step(self, urgency: Urgency) -> ExitStack:
        self.urgencies.append(urgency)
        return ExitStack()


def test_a_step_is_as_urgent_as_the_most_urgent_in_it(gate: ComputeGate) -> None:
    for share in (FLOOD, FLOOD, FLOOD, QUIET):
        gate.arrive("talker", share)
    told = Told(gate)
    step = gated(told, len)
    step([slice_of(FLOOD, emitted=3, lead_seconds=2.0), slice_of(QUIET)])
    step([slice_of(QUIET, emitted=1, lead_seconds=0.05), slice_of(FLOOD)])
    step([slice_of(FLOOD), slice_of(FLOOD, emitted=3, lead_seconds=2.0)])
    assert told.urgencies == ["first", "ending", "ordinary"]


def test_of_a_tenant_alone_no_step_is_more_urgent_than_others(gate: ComputeGate) -> None:
    for _ in range(8):
        gate.arrive("talker", FLOOD)
    told = Told(gate)
    gated(told, len)([slice_of(FLOOD)])
    gate.arrive("talker", QUIET)
    gate.depart("talker", QUIET)
    gated(told, len)([slice_of(FLOOD)])
    assert told.urgencies == ["ordinary", "ordinary"]


async def test_jobs_of_an_outnumbered_tenant_are_first_ones(gate: ComputeGate) -> None:
    for _ in range(3):
        gate.arrive("talker", FLOOD)
    told = Told(gate)
    batcher: Batcher[str, str] = Batcher(
        lambda jobs: jobs, max_waiting=4, gate=told, is_first=lambda job: job != "later"
    )
    batcher.start()
    try:
        async with asyncio.timeout(_LONG):
            for job, share in (("a", FLOOD), ("b", QUIET), ("later", QUIET)):
                await batcher.run(job, share=share)
            await batcher.run("late", share=FLOOD, due=0.0)
            await batcher.run("whose")
            gate.arrive("thinker", FLOOD)
            gate.arrive("thinker", QUIET)
            await batcher.run("whose")
    finally:
        await batcher.stop()
    assert told.urgencies == ["ordinary", "first", "ordinary", "ending", "ordinary", "first"]


def test_a_device_with_an_order_of_its_own_has_no_gate() -> None:
    assert gate_of(torch.device("cuda")) is OPEN
    assert gate_of(torch.device("cpu")) is gate_of(torch.device("cpu"))
    with OPEN.step("first"), OPEN.step("ordinary"):
        assert not OPEN.is_outnumbered(QUIET)
