"""What the services around a decoder share: their knobs, and how they tell their load."""

from pathlib import Path
from typing import Final

import torch
from pydantic import Field
from pydantic_settings import BaseSettings

from antiphon.engine.compute_gate import gate_of
from antiphon.engine.decode_steps import DecodeLimits
from antiphon.engine.graphs import Graphs
from antiphon.engine.load import Load
from antiphon.engine.loading import DecoderBounds
from antiphon.engine.prefill_steps import PrefillLimits
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.hosting.service import ServiceLoad
from antiphon.model.placement import DeviceName, TypeName
from antiphon.scaling.signals import SpeechSignals, ThinkerSignals
from antiphon.telemetry.page_metrics import PageCounts

_SHARED_STEP_REQUESTS_CPU: Final = 4


class DecoderSettings(BaseSettings):
    checkpoint: Path
    device: DeviceName = "auto"
    # Of weights and of the key/value store.
    dtype: TypeName = "auto"

    # The key/value store, shared by all requests: rows of prompts and of what is generated.
    cache_rows: int = Field(65_536, gt=0)
    page_rows: int = Field(16, gt=0)
    # Requests of one tenant share the pages of what their prompts have in common.
    shares_pages: bool = True
    # A prompt and what is generated; unset takes what the checkpoint allows.
    context_rows: int | None = Field(None, gt=0)

    # One step of the model: rows of prompts and of what is generated together. What is sent of them must fit into one
    # message.
    rows_per_step: int = Field(512, gt=0, le=4096)
    running_requests: int = Field(128, gt=0)
    waiting_requests: int = Field(256, gt=0)
    # That go on by one row in a step which several tenants want. Unset, 4 on a CPU, whose steps last longer with each,
    # and all of them elsewhere.
    shared_step_requests: int | None = Field(None, gt=0)
    # Steps of fixed shape, which a GPU replays as CUDA graphs; and steps that begin before the outputs of the last one
    # have been read. Unset, on a GPU.
    fixed_steps: bool | None = None
    overlapping_steps: bool | None = None
    # A step that takes longer never ends: its requests go on elsewhere, and this service answers no more.
    longest_step_seconds: float = Field(30.0, gt=0)
    # Rows of media that all requests together may hold until they have been read.
    media_rows: int = Field(262_144, gt=0)

    @property
    def page_count(self) -> int:
        return -(-self.cache_rows // self.page_rows)

    def context(self, most_rows: int) -> int:
        """Rows of one request, of the `most_rows` that the checkpoint allows."""
        return min(most_rows, self.context_rows or most_rows)

    def bounds(self, device: torch.device) -> DecoderBounds:
        shared = _SHARED_STEP_REQUESTS_CPU if device.type == "cpu" else None
        steps = SchedulerLimits(
            self.running_requests, self.waiting_requests, self.rows_per_step, self.shared_step_requests or shared
        )
        overlaps = device.type == "cuda" if self.overlapping_steps is None else self.overlapping_steps
        return DecoderBounds(
            steps,
            self.page_count,
            self.page_rows,
            self.media_rows,
            overlaps,
            gate_of(device),
            self.longest_step_seconds + self.longest_wait_seconds,
        )

    @property
    def longest_wait_seconds(self) -> float:
        """Within a step, for something that is not computed here."""
        return 0.0

    def graphs(self, device: torch.device) -> Graphs | None:
        """For steps of fixed shape, if there are to be any."""
        wanted = device.type == "cuda" if self.fixed_steps is None else self.fixed_steps
        return Graphs(device) if wanted else None

    def decode_limits(self, most_rows: int) -> DecodeLimits:
        """most_rows: of one request, as the checkpoint allows."""
        return DecodeLimits(self.running_requests, self.context(most_rows))

    def prefill_limits(self, most_rows: int) -> PrefillLimits:
        return PrefillLimits(self.running_requests, self.context(most_rows), self.rows_per_step)


def page_counts(load: Load) -> PageCounts:
    return PageCounts(
        held=load.pages_used,
        kept=load.pages_kept,
        evicted=load.pages_evicted,
        reused_rows=load.rows_reused,
        preemptions=load.preemptions,
    )


def service_load(load: Load) -> ServiceLoad:
    return ServiceLoad(waiting=load.waiting, running=load.running, pages_used=load.pages_used)


def thinker_signals(load: Load) -> ThinkerSignals:
    return ThinkerSignals(
        waiting_rows=load.waiting_rows,
        prompt_rate=load.pace.prompt_rate,
        token_rate=load.pace.output_rate,
        step_p95_seconds=load.pace.step_p95_seconds,
        pages_used=load.pages_used,
        page_count=load.page_count,
    )


def speech_signals(load: Load, *, places: int, frame_seconds: float) -> SpeechSignals:
    return SpeechSignals(
        streams=load.running + load.waiting,
        places=places,
        sound_rate=load.pace.output_rate * frame_seconds,
        playing=load.pace.playing,
        short_leads=load.pace.short_leads,
        first_p95_seconds=load.pace.first_p95_seconds,
    )
