"""Steps in two halves of other requests: while one half waits for experts elsewhere, the trunk computes the other."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager

import torch

from services.thinker.prefill import Computed, Prefill
from services.thinker.step_inputs import StepMedia, ThinkerSlice
from services.thinker.trunk_turns import TrunkTurns


class HalvedSteps:
    """A Prefill; only steps of some rows and more than one request fit."""

    def __init__(
        self,
        whole: Prefill,
        turns: TrunkTurns,
        least_rows: int,
        device: torch.device,
        entered: Callable[[], AbstractContextManager[object]],
        begin: Callable[[Sequence[ThinkerSlice], Sequence[ThinkerSlice]], None],
    ) -> None:
        """whole: computes each half. entered: makes the device's stream that of the thread. begin: is told what the
        lanes are about to compute."""
        self._whole, self._turns, self._least_rows = whole, turns, least_rows
        self._device, self._entered, self._begin = device, entered, begin
        self._second_lane = ThreadPoolExecutor(1, thread_name_prefix="thinker-second-lane")

    def compute(self, slices: Sequence[ThinkerSlice], media: StepMedia | None) -> Computed | None:  # noqa: ARG002
        """By the thread of the first lane, whose turn it is."""
        middle = _middle(slices)
        if not middle or sum(each.row_count for each in slices) < self._least_rows:
            return None
        self._begin(slices[:middle], slices[middle:])
        other = self._second_lane.submit(self._second, slices[middle:])
        try:
            first = self._half(slices[:middle])
        finally:
            with self._turns.away():
                wait([other])
        return _joined(first, other.result())

    def close(self) -> None:
        self._second_lane.shutdown()

    @torch.inference_mode()
    def _second(self, slices: Sequence[ThinkerSlice]) -> Computed:
        with self._turns.of(1), self._entered():
            return self._half(slices)

    def _half(self, slices: Sequence[ThinkerSlice]) -> Computed:
        computed = self._whole.compute(slices, StepMedia.of(slices, self._device))
        if computed is None:
            raise ValueError("Expected halves to be computed by what every step fits.")
        return computed


def _middle(slices: Sequence[ThinkerSlice]) -> int:
    """How many of the slices are the first half, by their rows; 0 when there is no second."""
    rows, best, middle = sum(each.row_count for each in slices), 0, 0
    before = 0
    for count, each in enumerate(slices[:-1], 1):
        before += each.row_count
        if min(before, rows - before) > best:
            best, middle = min(before, rows - before), count
    return middle


def _joined(first: Computed, second: Computed) -> Computed:
    accepted = None
    if first.accepted is not None and second.accepted is not None:
        accepted = torch.cat((first.accepted, second.accepted))
    slots, sampled = torch.cat((first.slots, second.slots)), torch.cat((first.sampled, second.sampled))
    return Computed(slots, accepted, sampled)
