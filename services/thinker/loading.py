"""Loads a Thinker, with its experts or without them, into what computes its steps."""

import torch

from antiphon.engine.decode_steps import DecodeSteps
from antiphon.model.attention import PagedKeyValues
from antiphon.model.config import OmniConfig
from antiphon.model.placement import Placement, wait_for
from antiphon.model.thinker import Thinker
from antiphon.model.weights import Checkpoint
from services.thinker.accepted_rows import AcceptedRows
from services.thinker.config import ThinkerSettings
from services.thinker.expert_trunk import ExpertTrunk
from services.thinker.prefill import FixedPrefill
from services.thinker.runner import ThinkerRunner, decoding


def load_runner(settings: ThinkerSettings, config: OmniConfig, where: Placement) -> ThinkerRunner:
    thinker = Thinker.load(Checkpoint(settings.checkpoint), config, dtype=where.dtype, device=where.device)
    keys_values, accepted = _stores(settings, config, where)
    graphs, most_rows = settings.graphs(where.device), config.thinker.text.max_positions
    if graphs is None:
        wait_for(where.device)
        return ThinkerRunner(thinker, keys_values, accepted)
    deepstack_layers = len(config.thinker.vision.deepstack_blocks)
    prefill = FixedPrefill(thinker, keys_values, deepstack_layers, settings.prefill_limits(most_rows), graphs)
    like, limits = torch.zeros((), dtype=torch.int64, device=where.device), settings.decode_limits(most_rows)
    decode_steps = DecodeSteps(decoding(thinker, keys_values), like, keys_values, limits, graphs)
    wait_for(where.device)
    return ThinkerRunner(thinker, keys_values, accepted, decode_steps, prefill)


def load_trunk(settings: ThinkerSettings, config: OmniConfig, where: Placement, trunk: ExpertTrunk) -> ThinkerRunner:
    """Without experts, and without steps of fixed shape: a CUDA graph cannot wait for another process."""
    thinker = Thinker.load(
        Checkpoint(settings.checkpoint), config, dtype=where.dtype, device=where.device, experts=trunk.experts
    )
    keys_values, accepted = _stores(settings, config, where)
    wait_for(where.device)
    return ThinkerRunner(thinker, keys_values, accepted, trunk=trunk)


def _stores(
    settings: ThinkerSettings, config: OmniConfig, where: Placement
) -> tuple[PagedKeyValues, AcceptedRows | None]:
    text = config.thinker.text
    keys_values = PagedKeyValues(text, settings.page_count, settings.page_rows, dtype=where.dtype, device=where.device)
    return keys_values, AcceptedRows(keys_values, text.width) if config.talker is not None else None
