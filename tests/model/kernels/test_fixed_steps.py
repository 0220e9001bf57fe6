"""Steps of fixed shape have room for every context where attention reads pages and gathers nothing."""

from dataclasses import replace

import pytest
import torch

from antiphon.engine.decode_steps import DecodeLimits, DecodeRow, DecodeSteps
from antiphon.engine.graphs import Graphs
from antiphon.engine.prefill_steps import PrefillLimits, PrefillSteps
from antiphon.model.attention import PackedRows, PagedKeyValues
from antiphon.model.config import OmniConfig
from antiphon.model.kernels.choice import PLAIN, Kernels
from antiphon.model.kernels.fused import FUSED

REQUESTS, CONTEXT_ROWS, PAGE_SIZE = 64, 65_536, 64


@pytest.mark.parametrize(("kernels", "has_room"), [(FUSED, True), (PLAIN, False)])
def test_all_requests_may_have_long_contexts_where_nothing_is_gathered(tiny_checkpoint, kernels: Kernels, has_room):
    text = replace(OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text, layers=1)
    store = PagedKeyValues(text, 2, PAGE_SIZE, dtype=torch.float32, device="cpu", kernels=kernels)
    limits, graphs = DecodeLimits(REQUESTS, CONTEXT_ROWS), Graphs(torch.device("cpu"))
    steps = DecodeSteps(lambda fed, *_: fed, torch.zeros(1), store, limits, graphs)
    longest = DecodeRow(CONTEXT_ROWS - 1, [0] * (CONTEXT_ROWS // PAGE_SIZE), 0.0, 0)
    assert (steps.fitting([longest] * REQUESTS) is not None) == has_room


def test_four_prefill_steps_have_room_for_prompts_of_any_length(tiny_checkpoint):
    """Each is a graph, which takes time to capture and memory to keep."""
    text = replace(OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text, layers=1)
    store = PagedKeyValues(text, 2, PAGE_SIZE, dtype=torch.float32, device="cpu", kernels=FUSED)
    graphs, like = CountedGraphs(torch.device("cpu")), torch.zeros(1)
    steps = PrefillSteps(lambda rows, *_: rows, like, store, PrefillLimits(REQUESTS, CONTEXT_ROWS, 512), graphs)
    assert graphs.count == 4
    assert steps.fitting([PackedRows(CONTEXT_ROWS - 512, 512, [0] * (CONTEXT_ROWS // PAGE_SIZE))]) is not None


class CountedGraphs(Graphs):
    count = 0

    def captured(self, compute):
        self.count += 1
        return super().captured(compute)
