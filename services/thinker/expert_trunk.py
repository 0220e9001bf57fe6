"""What a Thinker has instead of experts of its own: shards that are watched, callers for its layers, and steps that say
for whom they are."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import numpy as np
import torch

from antiphon.experts.calls import ExpertResult
from antiphon.experts.load import RoutingMeter, RowTenants
from antiphon.experts.served_model import expert_model
from antiphon.experts.usual_times import Patience
from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.expert_weights import ExpertReader
from antiphon.model.kernels.choice import Experts
from antiphon.model.placement import Placement
from antiphon.model.thinker import PREFIX
from antiphon.model.weights import Checkpoint
from antiphon.telemetry.metrics import process_metrics
from services.thinker import expert_traces
from services.thinker.call_parts import most_pairs
from services.thinker.config import RemoteExpertSettings
from services.thinker.expert_step import ExpertStep
from services.thinker.halved_steps import HalvedSteps
from services.thinker.local_experts import LocalExpertSet, parsed_keys
from services.thinker.prefill import Prefill
from services.thinker.remote_experts import CallRules, ExpertCaller, RemoteExperts
from services.thinker.routing_reports import ReportLimits, RoutingReports
from services.thinker.shard_places import ShardPlaces
from services.thinker.shard_roster import ShardRoster
from services.thinker.shard_watch import ShardWatch, WatchLimits
from services.thinker.step_inputs import ThinkerSlice
from services.thinker.trunk_turns import LANES, TrunkTurns

# After each answer of a shard a lane needs the interpreter, which the thread of the event loop keeps for up to 5 ms by
# default.
_SWITCH_SECONDS: Final = 0.0005


class ExpertTrunk:
    """Making one reads a little of the checkpoint."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: OmniConfig,
        where: Placement,
        settings: RemoteExpertSettings,
        places: ShardPlaces,
        rows_per_step: int,
    ) -> None:
        text = config.thinker.text
        model = expert_model(checkpoint, PREFIX, text, where.dtype)
        rules = _call_rules(settings, rows_per_step, text.width, where.dtype)
        self._settings, self._metrics, self._places = settings, process_metrics(), places
        self.roster = ShardRoster(model, places.host_id, probation_seconds=settings.probation_seconds)
        self._watch = ShardWatch(self.roster, places.network, places.addresses, _watch_limits(settings))
        reader = ExpertReader.of(checkpoint, PREFIX, text, where.dtype, where.device)
        local = LocalExpertSet(reader, text.layers, text.experts)
        meter = RoutingMeter(text.layers, text.experts, half_life_seconds=settings.routing_half_life_seconds)
        fixed, limits = parsed_keys(settings.local_experts), _report_limits(settings, text, where.dtype)
        self._reports = RoutingReports(meter, self.roster, places.network, local, fixed, limits)
        self._turns = TrunkTurns()
        self._caller = ExpertCaller(self.roster, rules, self._turns, local, meter)
        self._halved: HalvedSteps | None = None
        self._steps, self._switch_seconds = 0, sys.getswitchinterval()

    def experts(self, layer: int) -> Experts:
        return RemoteExperts(layer, self._caller)

    def halved(
        self, whole: Prefill, device: torch.device, entered: Callable[[], AbstractContextManager[object]]
    ) -> HalvedSteps | None:
        """See HalvedSteps; None when the settings want none."""
        if self._settings.halved_rows is not None:
            self._halved = HalvedSteps(
                whole, self._turns, self._settings.halved_rows, device, entered, self._part_tenants
            )
        return self._halved

    @property
    def shards(self) -> Sequence[str]:
        """Addresses of those that are called now."""
        return self._watch.addresses

    async def start(self) -> None:
        """Returns once every expert has a copy."""
        sys.setswitchinterval(min(_SWITCH_SECONDS, self._switch_seconds))
        await self._reports.start()
        await self._watch.start()

    async def close(self) -> None:
        """Once no step is computed any more."""
        if self._halved is not None:
            self._halved.close()
        await self._reports.close()
        await self._watch.close()
        await self._places.close()
        sys.setswitchinterval(self._switch_seconds)

    @contextmanager
    def step(self, slices: Sequence[ThinkerSlice]) -> Iterator[None]:
        """Around what computes the slices, on the first lane."""
        sequences = [each.sequence for each in slices]
        self._steps += 1
        is_sampled = self._settings.traced_steps > 0 and self._steps % self._settings.traced_steps == 0
        whose = row_tenants(slices)
        step = ExpertStep(lambda: any(each.phase != "ended" for each in sequences), is_sampled, [whose] * LANES)
        # A request's first step with an output is of those up to it.
        requests = [
            (each.request.experts, each.request.latest_id is not None)
            for each in sequences
            if each.request.experts is not None
        ]
        self._caller.step, started_ns = step, time.time_ns()
        try:
            with self._turns.of(0):
                yield
        finally:
            expert_traces.charge(requests, step.usage)
            expert_traces.observe(self._metrics, step.usage)
            if is_sampled:
                expert_traces.show(step, [request for request, _ in requests], started_ns)

    def _part_tenants(self, *lanes: Sequence[ThinkerSlice]) -> None:
        """Of a step that is computed in parts."""
        self._caller.step.tenants[:] = [row_tenants(each) for each in lanes]


def row_tenants(slices: Sequence[ThinkerSlice]) -> RowTenants:
    tenants = [each.sequence.share.tenant for each in slices]
    whose = RowTenants.of(tenants)
    return RowTenants(whose.names, np.repeat(whose.of_rows, [each.row_count for each in slices]))


def _report_limits(settings: RemoteExpertSettings, text: DecoderConfig, dtype: torch.dtype) -> ReportLimits:
    expert_bytes = 3 * text.width * text.expert_width * dtype.itemsize
    fitting = (settings.hot_experts_mb << 20) // (text.layers * expert_bytes)
    return ReportLimits(
        settings.report_every_seconds,
        settings.answer_seconds,
        min(settings.hot_experts, fitting),
        settings.hot_experts_seconds,
    )


def _watch_limits(settings: RemoteExpertSettings) -> WatchLimits:
    return WatchLimits(settings.look_every_seconds, settings.answer_seconds, settings.forget_seconds)


def _call_rules(settings: RemoteExpertSettings, rows_per_step: int, width: int, dtype: torch.dtype) -> CallRules:
    patience = Patience(settings.patience_factor, settings.least_patience_seconds, settings.most_patience_seconds)
    kind = ExpertResult(settings.result)
    return CallRules(kind, patience, settings.wait_seconds, most_pairs(kind, rows_per_step, width, dtype))
