"""Decode steps of fixed shape against packed ones of free shape, and what a CUDA graph forbids."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues
from antiphon.model.config import OmniConfig
from antiphon.model.decode_batch import DecodeBatch

PAGE_SIZE, PAGE_COUNT = 4, 32
# Rows in sight of each request, the new one included.
LENGTHS = [1, 9, 4, 23, 5]
ROOM_PAGES = 8


@pytest.fixture
def store(tiny_checkpoint) -> PagedKeyValues:
    """Filled with numbers; what no request owns holds none, so that reading it shows."""
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    store = PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=torch.float32, device="cpu")
    store.keys.fill_(torch.nan)
    store.values.fill_(torch.nan)
    return store


def rows_of(store: PagedKeyValues, lengths: list[int]) -> list[PackedRows]:
    """Requests with scattered pages and a written past."""
    generator = torch.Generator().manual_seed(1)
    free = torch.randperm(PAGE_COUNT, generator=generator).tolist()
    rows = []
    for length in lengths:
        pages = [free.pop() for _ in range(-(-length // PAGE_SIZE))]
        rows.append(PackedRows(length - 1, 1, pages))
        for row in range(length - 1):
            slot = pages[row // PAGE_SIZE] * PAGE_SIZE + row % PAGE_SIZE
            store.keys[:, slot] = torch.randn(store.keys[:, slot].shape, generator=generator)
            store.values[:, slot] = torch.randn(store.values[:, slot].shape, generator=generator)
    return rows


def fixed(rows: list[PackedRows], room: int, store: PagedKeyValues) -> DecodeBatch:
    """The first request fills the room up, but its stand-ins keep nothing."""
    padded = [*rows, *[rows[0]] * (room - len(rows))]
    own = [each.pages[each.first_row // PAGE_SIZE] * PAGE_SIZE + each.first_row % PAGE_SIZE for each in rows]
    tables = [[*each.pages, *[each.pages[0]] * (ROOM_PAGES - len(each.pages))] for each in padded]
    slots = torch.tensor([*own, *[store.spare_slot] * (room - len(rows))])
    lengths = torch.tensor([each.stop_row for each in padded], dtype=torch.int32)
    return DecodeBatch(slots, torch.tensor(tables, dtype=torch.int32), lengths, store)


def heads(store: PagedKeyValues, requests: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kv_heads, width = store.keys.shape[2:]
    queries = torch.randn(requests, 2 * kv_heads, width, generator=generator)
    keys, values = torch.randn(2, requests, kv_heads, width, generator=generator)
    return queries, keys, values


@pytest.mark.parametrize("room", [5, 8])
def test_attention_of_fixed_shape_equals_that_of_free_shape(store: PagedKeyValues, room: int) -> None:
    rows = rows_of(store, LENGTHS)
    queries, keys, values = heads(store, len(rows), 3)
    expected = PackedBatch.build(rows, store).attend(queries, keys, values, 1, store)
    kept = store.keys.clone()
    stand_ins = [0] * (room - len(rows))
    padded = [torch.cat((each, each[stand_ins])) for each in (queries, keys, values)]
    found = fixed(rows, room, store).attend(padded[0], padded[1], padded[2], 1, store)
    torch.testing.assert_close(found[: len(rows)], expected, rtol=1e-6, atol=1e-6)
    owned = slice(0, store.spare_slot)
    assert torch.equal(store.keys[:, owned].nan_to_num(7.0), kept[:, owned].nan_to_num(7.0)), "stand-ins keep nothing"


def test_a_stand_in_is_kept_where_nobody_reads(store: PagedKeyValues) -> None:
    rows = rows_of(store, [6])
    before = store.keys.clone()
    queries, keys, values = heads(store, 4, 5)
    fixed(rows, 4, store).attend(queries, keys, values, 0, store)
    changed = (store.keys.nan_to_num(7.0) != before.nan_to_num(7.0)).any(-1).any(-1)[0].nonzero().flatten().tolist()
    own = rows[0].pages[1] * PAGE_SIZE + 1
    assert sorted(changed) == sorted([own, store.spare_slot])
    assert store.spare_slot >= PAGE_COUNT * PAGE_SIZE


def test_the_plan_and_its_attention_never_wait_for_a_value(tiny_checkpoint) -> None:
    """Tensors of a device that is not there: no value of them can be read, and none can be copied from the host."""
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    with FakeTensorMode():
        store = PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=torch.bfloat16, device="cuda:0")
        slots = torch.empty(4, dtype=torch.int64, device="cuda:0")
        tables = torch.empty(4, ROOM_PAGES, dtype=torch.int32, device="cuda:0")
        lengths = torch.empty(4, dtype=torch.int32, device="cuda:0")
        batch = DecodeBatch(slots, tables, lengths, store)
        shape = (4, config.kv_heads, config.head_width)
        keys = torch.empty(shape, dtype=torch.bfloat16, device="cuda:0")
        queries = torch.empty(4, config.heads, config.head_width, dtype=torch.bfloat16, device="cuda:0")
        attended = batch.attend(queries, keys, keys, 0, store)
        assert attended.device.type == "cuda"
        assert attended.shape == (4, config.heads * config.head_width)
