"""Attention over pages where they lie equals plain causal attention of each sequence alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.kernels.fused import FUSED
from tests.model.kernels.closeness import TYPES, assert_close

PAGE_SIZE, PAGE_COUNT = 8, 160


@pytest.fixture(scope="module")
def config(tiny_checkpoint) -> DecoderConfig:
    return OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text


class Conversation:
    """A sequence of drawn rows whose pages lie scattered over the store."""

    def __init__(
        self, row_count: int, heads: tuple[int, int, int], pages: list[int], generator: torch.Generator
    ) -> None:
        query_heads, kv_heads, width = heads
        self.queries = torch.randn(row_count, query_heads, width, generator=generator)
        self.keys, self.values = torch.randn(2, row_count, kv_heads, width, generator=generator)
        self.pages = [pages.pop() for _ in range(-(-row_count // PAGE_SIZE))]

    def rows(self, first: int, stop: int) -> PackedRows:
        return PackedRows(first, stop - first, self.pages)

    def part(self, first: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries[first:stop], self.keys[first:stop], self.values[first:stop]

    def alone(self, dtype: torch.dtype) -> Tensor:
        """All rows at once in plain torch, (rows, heads * head width), computed in float32 from rounded inputs."""
        parts = (part.to(dtype).float().transpose(0, 1)[None] for part in (self.queries, self.keys, self.values))
        attended = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
        return attended[0].transpose(0, 1).flatten(1).to(dtype)


class Store:
    """What nobody wrote is no number, so that reading it shows."""

    def __init__(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> None:
        self.keys_values = PagedKeyValues(
            config, PAGE_COUNT, PAGE_SIZE, dtype=dtype, device=device, kernels=replace(FUSED)
        )
        self.keys_values.keys.fill_(torch.nan)
        self.keys_values.values.fill_(torch.nan)
        self.generator = torch.Generator().manual_seed(seed)
        self._heads = config.heads, config.kv_heads, config.head_width
        self._pages = torch.randperm(PAGE_COUNT, generator=self.generator).tolist()

    def conversation(self, row_count: int) -> Conversation:
        return Conversation(row_count, self._heads, self._pages, self.generator)

    def keep(self, conversation: Conversation, stop: int) -> None:
        """Puts the rows before `stop` where they belong without attending."""
        places = [(conversation.pages[row // PAGE_SIZE], row % PAGE_SIZE) for row in range(stop)]
        slots = torch.tensor([page * PAGE_SIZE + place for page, place in places], device=self.keys_values.keys.device)
        kept = (part[:stop].to(self.keys_values.keys) for part in (conversation.keys, conversation.values))
        self.keys_values.write(1, slots, *kept)

    def step(self, shares: list[tuple[Conversation, int, int]]) -> list[Tensor]:
        """One packed step over rows [first, stop) of each: their attended rows."""
        batch = PackedBatch.build([each.rows(first, stop) for each, first, stop in shares], self.keys_values)
        packed = zip(*(each.part(first, stop) for each, first, stop in shares), strict=True)
        like = self.keys_values.keys
        queries, keys, values = (torch.cat(parts).to(like) for parts in packed)
        attended = batch.attend(queries, keys, values, layer=1, keys_values=self.keys_values)
        return list(attended.split([stop - first for _, first, stop in shares]))


# Chunks of prompts and decoding rows in one step, from the first row on and after others; 70 rows fill several blocks
# of rows and of keys.
@pytest.mark.parametrize("dtype", TYPES)
def test_any_mixture_of_chunks_equals_each_sequence_alone(config, dtype, device):
    store = Store(config, dtype, device)
    chunks = [[70, 1, 1], [1, 66, 1], [7, 2, 20]]
    conversations = [store.conversation(sum(lengths)) for lengths in chunks]
    results: list[list[Tensor]] = [[] for _ in chunks]
    done = [0] * len(chunks)
    for step in range(3):
        stops = [first + lengths[step] for first, lengths in zip(done, chunks, strict=True)]
        for result, rows in zip(results, store.step(list(zip(conversations, done, stops, strict=True))), strict=True):
            result.append(rows)
        done = stops
    for conversation, rows in zip(conversations, results, strict=True):
        assert_close(torch.cat(rows).cpu(), conversation.alone(dtype))


# Shorter than one part of a context, a part exactly, over two parts and over all sixteen.
@pytest.mark.parametrize(
    ("dtype", "lengths"),
    [(torch.float32, [1, 64, 1030, 2]), (torch.float16, [65, 1, 64]), (torch.bfloat16, [3, 130])],
)
def test_short_and_long_contexts_decode_together(config, dtype, lengths, device):
    store = Store(config, dtype, device, seed=1)
    conversations = [store.conversation(length) for length in lengths]
    for conversation, length in zip(conversations, lengths, strict=True):
        if length > 1:
            store.keep(conversation, length - 1)
    last = store.step([(each, length - 1, length) for each, length in zip(conversations, lengths, strict=True)])
    for conversation, rows in zip(conversations, last, strict=True):
        assert_close(rows.cpu(), conversation.alone(dtype)[-1:])


def test_how_a_row_decodes_does_not_depend_on_who_is_beside_it(config, device):
    store = Store(config, torch.float32, device, seed=2)
    short, long = store.conversation(20), store.conversation(200)
    store.keep(short, 19)
    store.keep(long, 199)
    together = store.step([(short, 19, 20), (long, 199, 200)])
    alone = store.step([(short, 19, 20)]), store.step([(long, 199, 200)])
    assert torch.equal(together[0], alone[0][0])
    assert torch.equal(together[1], alone[1][0])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which the interpreter computes with
def test_a_request_of_no_numbers_spoils_no_other(config, device):
    store = Store(config, torch.float32, device, seed=3)
    broken, healthy = store.conversation(30), store.conversation(30)
    broken.keys[:], broken.values[:] = torch.nan, torch.nan
    for first, stop in ((0, 29), (29, 30)):
        rows = store.step([(broken, first, stop), (healthy, first, stop)])
        assert rows[0].isnan().all()
        assert_close(rows[1].cpu(), healthy.alone(torch.float32)[first:stop])


def test_a_fixed_batch_with_room_to_spare_decodes_the_same(config, device):
    """Tables wider and batches longer than the requests need, as a captured step has them; nobody is at length zero."""
    store, lengths = Store(config, torch.float32, device, seed=4), [9, 70]
    conversations = [store.conversation(length) for length in lengths]
    for each, length in zip(conversations, lengths, strict=True):
        store.keep(each, length - 1)
    expected = store.step([(each, length - 1, length) for each, length in zip(conversations, lengths, strict=True)])
    tables = torch.zeros(4, 16, dtype=torch.int32)
    for table, each in zip(tables, conversations, strict=False):
        table[: len(each.pages)] = torch.tensor(each.pages)
    slots = torch.full((4,), store.keys_values.spare_slot)
    like = store.keys_values.keys
    batch = DecodeBatch(
        slots.to(device),
        tables.to(device),
        torch.tensor([9, 70, 0, 0], dtype=torch.int32, device=device),
        store.keys_values,
    )
    queries = torch.cat([each.queries[-1:] for each in conversations] * 2).to(like)
    keys, values = (
        torch.cat([getattr(each, name)[-1:] for each in conversations] * 2).to(like) for name in ("keys", "values")
    )
    attended = batch.attend_kept(queries, keys, values, layer=1, keys_values=store.keys_values)
    assert torch.equal(attended[:2], torch.cat(expected))
    assert torch.equal(attended[2:], torch.zeros_like(attended[2:]))
