"""Whole decoders compute with the fused kernels what they compute in plain torch: the Thinker's, and the Talker's with
its shared expert."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from antiphon.engine.graphs import Graphs
from antiphon.engine.prefill_steps import PrefillLimits, PrefillSteps, RowNumbers
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues, StepAttention
from antiphon.model.code_predictor import CodePredictor
from antiphon.model.config import OmniConfig
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.decoder import Decoder
from antiphon.model.experts import local_experts
from antiphon.model.kernels.choice import PLAIN, Kernels, kernels_for
from antiphon.model.kernels.fused import FUSED
from antiphon.model.weights import Checkpoint
from tests.model.kernels.closeness import draw

COLD = replace(FUSED, warm_up_pairs_per_expert=())
PAGE_SIZE, PAGES = 8, [[3, 0, 6], [5, 2, 7]]


class _Loaded(NamedTuple):
    decoder: Decoder
    keys_values: PagedKeyValues

    def step(self, rows: Tensor, positions: Tensor, shares: list[tuple[int, int]]) -> Tensor:
        """shares: first row and row count of each request."""
        packed = [PackedRows(*share, pages) for share, pages in zip(shares, PAGES, strict=True)]
        return self.decoder(rows, positions, PackedBatch.build(packed, self.keys_values), self.keys_values)


def _loaded(checkpoint, part: str, kernels: Kernels, device: torch.device) -> _Loaded:
    config = OmniConfig.from_checkpoint(checkpoint)
    text = config.thinker.text if part == "thinker" else config.require_talker().text
    read, prefix = Checkpoint(checkpoint), f"{part}.model."
    settings = {"dtype": torch.float32, "device": device, "kernels": kernels}
    decoder = Decoder.load(read, prefix, text, local_experts(read, prefix, text, **settings), **settings)
    return _Loaded(decoder, PagedKeyValues(text, 8, PAGE_SIZE, **settings))


@pytest.mark.parametrize("part", ["thinker", "talker"])
@torch.inference_mode()
def test_a_prompt_a_chunk_and_a_decoding_row_are_computed_as_in_plain_torch(tiny_checkpoint, part, device):
    plain, fused = (_loaded(tiny_checkpoint, part, kernels, device) for kernels in (PLAIN, COLD))
    width = plain.decoder.norm.weight.shape[0]
    # A prompt beside a single row; then a decoding row beside a chunk; then both decode.
    for seed, shares in enumerate([[(0, 9), (0, 1)], [(9, 1), (1, 12)], [(10, 1), (13, 1)]]):
        count = sum(each for _, each in shares)
        rows = draw(count, width, seed=seed, dtype=torch.float32, device=device)
        places = torch.cat([torch.arange(first, first + each) for first, each in shares])
        positions = places.to(device, torch.float32).expand(3, -1)
        computed, expected = (each.step(rows.clone(), positions, shares) for each in (fused, plain))
        torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-5)
    kept = [page * PAGE_SIZE for pages in PAGES for page in pages[:1]]
    torch.testing.assert_close(fused.keys_values.keys[:, kept], plain.keys_values.keys[:, kept], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["thinker", "talker"])
@torch.inference_mode()
def test_prefill_steps_of_fixed_shape_are_computed_as_free_ones_in_plain_torch(tiny_checkpoint, part, device):
    """With the fused kernels, and room for more rows and requests than there are."""
    plain, fused = (_loaded(tiny_checkpoint, part, kernels, device) for kernels in (PLAIN, COLD))
    width = plain.decoder.norm.weight.shape[0]
    limits = PrefillLimits(requests=3, context_rows=3 * PAGE_SIZE, rows=14)
    like = draw(1, width, seed=0, dtype=torch.float32, device=device)[0]

    def compute(rows: Tensor, positions: Tensor, batch: StepAttention) -> Tensor:
        return fused.decoder(rows, positions, batch, fused.keys_values)

    steps = PrefillSteps(compute, like, fused.keys_values, limits, Graphs(device))
    for seed, shares in enumerate([[(0, 9), (0, 1)], [(9, 1), (1, 12)], [(10, 2), (13, 3)]]):
        count = sum(each for _, each in shares)
        rows = draw(count, width, seed=seed, dtype=torch.float32, device=device)
        positions = torch.cat([torch.arange(first, first + each) for first, each in shares]).float().expand(3, -1)
        requests = [PackedRows(*share, pages) for share, pages in zip(shares, PAGES, strict=True)]
        step = steps.fitting(requests)
        assert step is not None
        step.put(requests, RowNumbers(np.zeros(count, np.int64), positions.numpy(), [count - 1]))
        step.fill(rows)
        expected = plain.step(rows.clone(), positions.to(device), shares)
        torch.testing.assert_close(step.compute()[:count], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_frame_of_codes_is_predicted_as_in_plain_torch(tiny_checkpoint, device):
    config, read = OmniConfig.from_checkpoint(tiny_checkpoint).require_talker(), Checkpoint(tiny_checkpoint)
    table = (config.text.vocabulary, config.text.width)
    embedding = read.tensor("talker.model.codec_embedding.weight", table, dtype=torch.float32, device=device)
    hidden, first_codes = draw(2, table[1], seed=6, dtype=torch.float32, device=device), torch.tensor([3, 5]).to(device)
    results = []
    for kernels in (PLAIN, COLD):
        settings = {"dtype": torch.float32, "device": device, "kernels": kernels}
        predictor = CodePredictor.load(read, config, embedding, **settings)
        results.append(predictor.predict(hidden, first_codes, lambda logits, _group: logits.argmax(-1)))
    (expected_codes, expected_sums), (codes, sums) = results
    assert torch.equal(codes, expected_codes)
    assert torch.equal(sums, expected_sums)


def test_a_cpu_computes_in_plain_torch():
    assert kernels_for("cpu") is PLAIN


def test_plain_torch_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert kernels_for("cuda") is FUSED
    monkeypatch.setenv("ANTIPHON_KERNELS", "plain")
    assert kernels_for("cuda") is PLAIN


@pytest.mark.gpu
@torch.inference_mode()
def test_a_decode_step_is_one_cuda_graph(tiny_checkpoint):
    """Replayed with other lengths, slots and pages than it was captured with."""
    device = torch.device("cuda")
    loaded = _loaded(tiny_checkpoint, "thinker", COLD, device)
    decoder, store = loaded
    width = decoder.norm.weight.shape[0]
    loaded.step(*_prompts(width, device), [(0, 17), (0, 20)])
    rows, positions = (
        draw(2, width, seed=1, dtype=torch.float32, device=device),
        torch.full((3, 2), 20.0, device=device),
    )
    slots, tables = (
        torch.zeros(2, dtype=torch.int64, device=device),
        torch.zeros(2, 3, dtype=torch.int32, device=device),
    )
    slots.fill_(store.spare_slot)
    lengths = torch.ones(2, dtype=torch.int32, device=device)

    def step() -> Tensor:
        return decoder(rows, positions, DecodeBatch(slots, tables, lengths, store), store)

    for _ in range(2):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = step()
    tables.copy_(torch.tensor(PAGES, dtype=torch.int32))
    lengths.copy_(torch.tensor([18, 21], dtype=torch.int32))
    slots.copy_(
        torch.tensor(
            [pages[row // PAGE_SIZE] * PAGE_SIZE + row % PAGE_SIZE for pages, row in zip(PAGES, (17, 20), strict=True)]
        )
    )
    graph.replay()
    assert torch.equal(replayed, step())


def _prompts(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    positions = torch.cat([torch.arange(17), torch.arange(20)]).to(device, torch.float32)
    return draw(37, width, seed=2, dtype=torch.float32, device=device), positions.expand(3, -1)
