"""A layer's experts on shards elsewhere: each pair is sent to a live copy, and to another one when that fails.

No expert is ever skipped: with no copy left the step waits until there is one again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from antiphon.errors import AntiphonError, Conflict, InvalidInput, Unavailable
from antiphon.experts.calls import ExpertCall, ExpertResult, ShardLink
from antiphon.experts.load import RoutingMeter
from antiphon.experts.routing import route
from antiphon.experts.usual_times import Patience
from services.thinker.call_parts import MOST_PAIRS, Places, waves
from services.thinker.expert_results import LayerResult, layer_result
from services.thinker.expert_step import CallSample, ExpertStep
from services.thinker.local_experts import LocalExpertSet, computed
from services.thinker.shard_roster import LinkedShard, LiveShards, ShardRoster
from services.thinker.trunk_turns import TrunkTurns

# How often a step that waits looks whether anybody still waits for it.
_LOOK_EVERY_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class CallRules:
    result: ExpertResult
    # With a shard that others can stand in for; without any it has `most_seconds`.
    patience: Patience
    # For shards in all layers of a step together, be it for answers or for a copy, before the step fails.
    wait_seconds: float
    # Of one call, unless one expert alone has more.
    most_pairs: int = MOST_PAIRS


class _Flight(NamedTuple):
    """A call that is under way."""

    shard: LinkedShard
    link: ShardLink
    # Which of the layer's pairs, and of which rows, each once.
    places: Places
    rows: Places
    started_ns: int
    # What kept it from being sent.
    error: AntiphonError | None


class LayerCall:
    """All pairs of one layer and step."""

    def __init__(self, layer: int, hidden: Tensor, expert_ids: Tensor, weights: Tensor, kind: ExpertResult) -> None:
        self.layer, self.per_row, self.kind = layer, expert_ids.shape[1], kind
        self.hidden, self.weights = hidden.cpu(), weights.cpu().reshape(-1)
        self.experts: Places = expert_ids.cpu().reshape(-1).numpy()
        self.result: LayerResult = layer_result(kind, hidden, self.per_row)

    def part(self, places: Places) -> tuple[ExpertCall, Places]:
        """Those of some pairs (ascending), and of which rows they are."""
        if len(places) == len(self.experts):
            return self._whole()
        of_pairs = places // self.per_row
        is_first = np.ones(len(places), dtype=np.bool_)
        np.not_equal(of_pairs[1:], of_pairs[:-1], out=is_first[1:])
        rows = of_pairs[is_first]
        has_all_rows = len(rows) == len(self.hidden)
        call = ExpertCall(
            self.layer,
            self.hidden if has_all_rows else self.hidden.index_select(0, torch.from_numpy(rows)),
            torch.from_numpy(np.cumsum(is_first, dtype=np.int32) - np.int32(1)),
            torch.from_numpy(self.experts[places].astype(np.int32)),
            self.weights.index_select(0, torch.from_numpy(places)),
            len(self.experts),
            self.kind,
        )
        return call, rows

    def _whole(self) -> tuple[ExpertCall, Places]:
        rows, pair_rows = _rows_of_pairs(len(self.hidden), self.per_row)
        experts = torch.from_numpy(self.experts.astype(np.int32))
        call = ExpertCall(self.layer, self.hidden, pair_rows, experts, self.weights, len(self.experts), self.kind)
        return call, rows


class ExpertCaller:
    """For all layers; each lane of a step calls by links of its own."""

    def __init__(
        self,
        roster: ShardRoster,
        rules: CallRules,
        turns: TrunkTurns,
        local: LocalExpertSet | None = None,
        meter: RoutingMeter | None = None,
    ) -> None:
        """local: experts that are computed here, while shards compute the others. meter: counts what is asked for."""
        self._roster, self._rules, self._turns, self._local, self._meter = roster, rules, turns, local, meter
        # Of which the next calls are.
        self.step = ExpertStep()

    def compute(self, layer: int, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        """As Experts does. Raises Unavailable when shards were waited for in vain, and InvalidInput when one refuses
        the call as such."""
        call = LayerCall(layer, hidden, expert_ids, weights, self._rules.result)
        lane = self._turns.lane
        if self._meter is not None:
            self._meter.add(layer, call.experts, self.step.tenants[lane])
        left, here = self._parted(call)
        try:
            live = self._roster.take(lane)
            left, missing = self._tried(call, live, left, here)
            if len(left):
                with self.step.waiting.counted():
                    self._retried(call, live, left, missing)
        finally:
            self._roster.give_back(lane)
        return call.result.sum()

    def _retried(self, call: LayerCall, live: LiveShards, left: Places, missing: tuple[int, ...]) -> None:
        while len(left):
            self._wait(call.layer, missing, live)
            live = self._roster.take(self._turns.lane)
            left, missing = self._tried(call, live, left, None)

    def _parted(self, call: LayerCall) -> tuple[Places, Callable[[], None] | None]:
        """The pairs that shards compute, and what computes the others, if there are any."""
        everything: Places = np.arange(len(call.experts))
        local = None if self._local is None else self._local.of_layer(call.layer)
        if local is None:
            return everything, None
        is_here = local.mask[call.experts]
        here = everything[is_here]
        if not len(here):
            return everything, None

        def compute() -> None:
            part, rows = call.part(here)
            call.result.add(here, rows, computed(part, local.experts))

        return everything[~is_here], compute

    def _tried(
        self, call: LayerCall, live: LiveShards, places: Places, meanwhile: Callable[[], None] | None
    ) -> tuple[Places, tuple[int, ...]]:
        """The pairs that have no result yet, and those experts that have no copy."""
        experts = call.experts[places]
        may_split = call.kind is ExpertResult.SUMS
        routes = route(experts, live.table.copies(call.layer), live.costs, may_split=may_split)
        lost = [places[np.isin(experts, routes.missing)]] if routes.missing else []
        asked = {shard: places[pairs] for shard, pairs in routes.pairs.items()}
        for wave in waves(asked, call.experts, self._rules.most_pairs):
            seconds = self._seconds_left(call.layer)
            flights = [self._sent(call, live, shard, part, seconds) for shard, part in wave]
            if meanwhile is not None:
                meanwhile()
                meanwhile = None
            lost += self._received(call, flights)
        return np.sort(np.concatenate(lost)) if lost else places[:0], routes.missing

    def _seconds_left(self, layer: int) -> float:
        """For answers of this wave. Raises Unavailable when the step has none."""
        left = self._rules.wait_seconds - self.step.waiting.seconds
        if left <= 0:
            raise Unavailable(self._in_vain(layer, ()))
        return left

    def _sent(self, call: LayerCall, live: LiveShards, place: int, places: Places, most_seconds: float) -> _Flight:
        shard, (part, rows) = live.shards[place], call.part(places)
        link, usual = shard.links[self._turns.lane], shard.usual.of(len(places))
        is_needed, patience = place in live.needed[call.layer], self._rules.patience
        seconds = patience.most_seconds if is_needed else patience.seconds(usual)
        started_ns, failure = time.time_ns(), None
        try:
            link.send(part, timeout_seconds=min(seconds, most_seconds))
        except AntiphonError as error:
            failure = error
        return _Flight(shard, link, places, rows, started_ns, failure)

    def _received(self, call: LayerCall, flights: Sequence[_Flight]) -> list[Places]:
        """Pairs of those that failed. Raises InvalidInput, once none is under way any more."""
        began, landed = time.perf_counter(), []
        with self._turns.away(), self.step.waiting.counted():
            for flight in flights:
                error = _landed(call, flight)
                landed.append((flight, time.time_ns(), error))
        self.step.usage.wait_seconds += time.perf_counter() - began
        lost: list[Places] = []
        refused: InvalidInput | None = None
        for flight, ended_ns, error in landed:
            if error is not None:
                self._lose(call.layer, flight, error)
                lost.append(flight.places)
                refused = error if isinstance(error, InvalidInput) else refused
            else:
                # What came after one that was waited for in vain says nothing of its shard.
                self._note(call.layer, flight, ended_ns, is_usual=not lost)
        if refused is not None:  # as any other shard would
            raise refused
        return lost

    def _note(self, layer: int, flight: _Flight, ended_ns: int, *, is_usual: bool) -> None:
        usage = self.step.usage
        usage.calls += 1
        usage.pairs += len(flight.places)
        if is_usual:
            flight.shard.usual.saw(len(flight.places), (ended_ns - flight.started_ns) / 1e9)
        self._sample(layer, flight, ended_ns)

    def _lose(self, layer: int, flight: _Flight, error: AntiphonError) -> None:
        self.step.usage.calls += 1
        self.step.usage.retries += 1
        self._sample(layer, flight, time.time_ns(), type(error).__name__)
        # A shard that has given an expert up meanwhile is as good as before, by a later table, and so is one that was
        # asked for what it cannot do, by another link.
        self._roster.lose(flight.shard, error, on_probation=not isinstance(error, Conflict | InvalidInput))

    def _sample(self, layer: int, flight: _Flight, ended_ns: int, error: str = "") -> None:
        if self.step.is_sampled:
            sample = CallSample(layer, flight.shard.address, len(flight.places), flight.started_ns, ended_ns, error)
            self.step.samples.append(sample)

    def _wait(self, layer: int, missing: tuple[int, ...], live: LiveShards) -> None:
        """For another table than that, if experts have no copy by it."""
        began = time.perf_counter()
        self._roster.give_back(self._turns.lane)
        with self._turns.away():
            while True:
                if not self.step.is_wanted():
                    raise Unavailable("Nobody waits any more for the step, whose experts could not be reached.")
                if self.step.waiting.seconds > self._rules.wait_seconds:
                    raise Unavailable(self._in_vain(layer, missing))
                if not missing or self._roster.live.epoch > live.epoch:
                    break
                self._roster.wait(live.epoch, _LOOK_EVERY_SECONDS)
        self.step.usage.wait_seconds += time.perf_counter() - began

    def _in_vain(self, layer: int, missing: tuple[int, ...]) -> str:
        seconds = f"within {self._rules.wait_seconds:g} s"
        if not missing:
            return (
                f"Shards did not answer for all layers of a step {seconds}, but for those up to {layer}. Look at what "
                "they log, and at ANTIPHON_THINKER_EXPERTS_WAIT_SECONDS."
            )
        return (
            f"No shard holds expert {missing[0]} of layer {layer} ({len(missing)} are missing), and none came "
            f"{seconds} in all layers of the step. Start a shard that does."
        )


@lru_cache(maxsize=256)
def _rows_of_pairs(rows: int, per_row: int) -> tuple[Places, Tensor]:
    """All rows, and int32 (pairs) the row of each pair; never written."""
    return np.arange(rows), torch.arange(rows, dtype=torch.int32).repeat_interleave(per_row)


def _landed(call: LayerCall, flight: _Flight) -> AntiphonError | None:
    """What kept it from it."""
    if flight.error is not None:
        return flight.error
    try:
        call.result.add(flight.places, flight.rows, flight.link.receive())
    except AntiphonError as error:
        return error
    return None


class RemoteExperts:
    """Of one layer."""

    def __init__(self, layer: int, caller: ExpertCaller) -> None:
        self.layer, self._caller = layer, caller

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        return self._caller.compute(self.layer, hidden, expert_ids, weights)
