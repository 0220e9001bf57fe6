"""Packed attention over pages equals plain causal attention of each sequence alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.config import DecoderConfig, OmniConfig
from tests.model.packed_steps import PackedSequence, PackedSteps

HEADS, KV_HEADS, HEAD_WIDTH = 4, 2, 16


@pytest.fixture(scope="module")
def config(tiny_checkpoint) -> DecoderConfig:
    return OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text


def _alone(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """All rows of one sequence at once, (rows, heads * head width)."""
    per_head = [tensor.transpose(0, 1)[None] for tensor in (queries, keys, values)]
    attended = F.scaled_dot_product_attention(*per_head, is_causal=True, enable_gqa=True)
    return attended[0].transpose(0, 1).flatten(1)


def _draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (rows, HEADS, HEAD_WIDTH), (rows, KV_HEADS, HEAD_WIDTH), (rows, KV_HEADS, HEAD_WIDTH)
    queries, keys, values = (torch.randn(shape, generator=generator) for shape in shapes)
    return queries, keys, values


# Each sequence is a list of chunk lengths; step s packs chunk s of every sequence that still has one.
@given(
    chunks=st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_mixture_of_chunks_equals_each_sequence_alone(config, chunks, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [_draw(sum(lengths), generator) for lengths in chunks]
    steps, sequences = PackedSteps(config, seed=seed), [PackedSequence() for _ in chunks]
    results: list[list[Tensor]] = [[] for _ in chunks]
    for step in range(max(map(len, chunks))):
        live = [index for index, lengths in enumerate(chunks) if step < len(lengths)]
        spans = [(sequences[index].computed, chunks[index][step]) for index in live]
        batch = steps.batch([(sequences[index], chunks[index][step]) for index in live])
        packed = [
            torch.cat(
                [inputs[index][part][first : first + count] for index, (first, count) in zip(live, spans, strict=True)]
            )
            for part in range(3)
        ]
        attended = batch.attend(*packed, layer=1, keys_values=steps.keys_values)
        for index, rows in zip(live, attended.split([count for _, count in spans]), strict=True):
            results[index].append(rows)
    for (queries, keys, values), rows in zip(inputs, results, strict=True):
        torch.testing.assert_close(torch.cat(rows), _alone(queries, keys, values), rtol=1e-5, atol=1e-6)


# At most so many slots are read together: all, those of a few requests, one request's at a time.
@pytest.mark.parametrize("slots_at_once", [None, 600, 300, 1])
def test_long_and_short_contexts_decode_together(config, slots_at_once):
    generator = torch.Generator().manual_seed(0)
    lengths = [300, 2, 7, 290, 1]
    inputs = [_draw(length, generator) for length in lengths]
    steps, sequences = PackedSteps(config), [PackedSequence() for _ in lengths]
    steps.keys_values.slots_at_once = slots_at_once or steps.keys_values.slots_at_once
    for sequence, (queries, keys, values), length in zip(sequences, inputs, lengths, strict=True):
        if length > 1:
            before = slice(0, length - 1)
            batch = steps.batch([(sequence, length - 1)])
            batch.attend(queries[before], keys[before], values[before], layer=0, keys_values=steps.keys_values)
    batch = steps.batch([(sequence, 1) for sequence in sequences])
    last = [torch.cat([parts[part][-1:] for parts in inputs]) for part in range(3)]
    attended = batch.attend(*last, layer=0, keys_values=steps.keys_values)
    expected = torch.cat([_alone(*parts)[-1:] for parts in inputs])
    torch.testing.assert_close(attended, expected, rtol=1e-5, atol=1e-6)


def test_a_row_depends_on_nobody_elses_keys(config):
    """A request whose keys are no numbers spoils itself and nobody who shares its step."""
    generator = torch.Generator().manual_seed(1)
    steps, broken, healthy = PackedSteps(config), PackedSequence(), PackedSequence()
    queries, keys, values = _draw(10, generator)
    nothing = torch.full_like(keys, float("nan"))
    both = [(torch.cat([a, b])) for a, b in ((queries, queries), (nothing, keys), (nothing, values))]
    steps.batch([(broken, 10), (healthy, 10)]).attend(*both, layer=0, keys_values=steps.keys_values)
    one = [tensor[:2].clone() for tensor in both]
    one[1][1], one[2][1] = keys[3], values[3]
    attended = steps.batch([(broken, 1), (healthy, 1)]).attend(*one, layer=0, keys_values=steps.keys_values)
    assert attended[1].isfinite().all()


def test_the_last_place_of_each_request_is_known(config):
    store = PagedKeyValues(config, 4, 8, dtype=torch.float32, device="cpu")
    batch = PackedBatch.build([PackedRows(0, 3, [0]), PackedRows(8, 1, [2, 1]), PackedRows(2, 2, [3])], store)
    assert batch.last_places == [2, 3, 5]
    assert batch.slots.tolist() == [0, 1, 2, 8, 26, 27]
