"""Prefill steps of fixed shape: any mixture of requests attends as in free shapes, and no step waits for a value."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from antiphon.engine.graphs import Graphs
from antiphon.engine.prefill_steps import PrefillLimits, PrefillSteps, RowNumbers
from antiphon.model.attention import PackedBatch, PackedRows, PagedKeyValues, StepAttention
from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.kernels.arguments import PagedRequests
from antiphon.model.kernels.choice import PLAIN, Kernels
from antiphon.model.prefill_batch import PrefillBatch, PrefillTables
from antiphon.model.talker import Talker
from antiphon.model.thinker import Thinker
from antiphon.model.weights import Checkpoint
from services.talker.runner import prefilling as talker_prefilling
from services.thinker.prefill import prefilling as thinker_prefilling

ResultT = TypeVar("ResultT")

PAGE_SIZE, PAGE_COUNT, CONTEXT_ROWS = 8, 96, 256
LIMITS = PrefillLimits(requests=6, context_rows=CONTEXT_ROWS, rows=128)
# (rows that were computed before, new rows) of each request.
MIXTURES = {
    "one row of a prompt": [(0, 1)],
    "a row less than the least step": [(0, 63)],
    "the least step, filled": [(0, 64)],
    "a row more": [(0, 65)],
    "the last chunk of a long prompt": [(130, 120)],
    "rows of answers only": [(5, 1), (0, 1), (200, 1)],
    "prompts, chunks and answers": [(31, 1), (0, 20), (40, 7), (12, 1), (0, 2)],
    "everything taken": [(70, 61), (8, 1), (0, 1), (3, 1)],
}


def all_kernels() -> list[Kernels]:
    """Pages are gathered, or read where they lie, interpreted where there is no GPU."""
    try:
        from antiphon.model.kernels.fused import FUSED
    except ImportError:
        return [PLAIN]
    return [PLAIN, replace(PLAIN, attention=FUSED.attention)]


@pytest.fixture(params=all_kernels(), ids=lambda kernels: "gathered" if kernels.attention is None else "paged")
def store(request, tiny_checkpoint) -> PagedKeyValues:
    """What nobody wrote is no number, so that reading it shows."""
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    store = PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=torch.float32, device="cpu", kernels=request.param)
    store.keys.fill_(torch.nan)
    store.values.fill_(torch.nan)
    return store


def requests_of(store: PagedKeyValues, mixture: list[tuple[int, int]]) -> list[PackedRows]:
    """Scattered pages, and a past that is written."""
    generator = torch.Generator().manual_seed(1)
    free = torch.randperm(PAGE_COUNT, generator=generator).tolist()
    requests = []
    for first, count in mixture:
        pages = [free.pop() for _ in range(-(-(first + count) // PAGE_SIZE))]
        requests.append(PackedRows(first, count, pages))
        for row in range(first):
            slot = pages[row // PAGE_SIZE] * PAGE_SIZE + row % PAGE_SIZE
            for kept in (store.keys, store.values):
                kept[:, slot] = torch.randn(kept[:, slot].shape, generator=generator)
    return requests


def heads_of(store: PagedKeyValues, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kv_heads, width = store.keys.shape[2:]
    queries, keys, values = rows.view(len(rows), -1, width).split([2 * kv_heads, kv_heads, kv_heads], 1)
    return queries, keys.contiguous(), values.contiguous()


def drawn_rows(store: PagedKeyValues, count: int) -> Tensor:
    kv_heads, width = store.keys.shape[2:]
    return torch.randn(count, 4 * kv_heads * width, generator=torch.Generator().manual_seed(2))


def steps_of(store: PagedKeyValues) -> PrefillSteps[Tensor]:
    def attend(rows: Tensor, positions: Tensor, batch: StepAttention) -> Tensor:
        return batch.attend(*heads_of(store, rows), 1, store)

    return PrefillSteps(attend, drawn_rows(store, 1)[0], store, LIMITS, Graphs(torch.device("cpu")))


def numbers(count: int) -> RowNumbers:
    return RowNumbers(np.arange(count), np.zeros((3, count), np.float32), [count - 1])


def fixed(steps: PrefillSteps[Tensor], requests: list[PackedRows], rows: Tensor) -> Tensor:
    step = steps.fitting(requests)
    assert step is not None
    step.put(requests, numbers(len(rows)))
    step.fill(rows)
    return step.compute()[: len(rows)]


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_a_mixture_attends_as_in_free_shapes_and_plain_torch(
    store: PagedKeyValues, mixture: list[tuple[int, int]]
) -> None:
    requests = requests_of(store, mixture)
    rows = drawn_rows(store, sum(count for _, count in mixture))
    steps = steps_of(store)
    fixed(
        steps, [PackedRows(0, 9, [3, 4]), PackedRows(3, 1, [5])], drawn_rows(store, 10)
    )  # its numbers are left behind
    requests_of(store, mixture)
    found = fixed(steps, requests, rows)
    kept = store.keys.clone()
    store.kernels = PLAIN
    expected = PackedBatch.build(requests, store).attend(*heads_of(store, rows), 1, store)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    owned = slice(0, store.spare_slot)
    assert torch.equal(store.keys[:, owned].nan_to_num(7.0), kept[:, owned].nan_to_num(7.0)), "stand-ins keep nothing"


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which the interpreter computes with
def test_a_request_of_no_numbers_spoils_no_other(store: PagedKeyValues) -> None:
    requests = requests_of(store, [(9, 1), (0, 30), (17, 1), (4, 12)])
    rows = drawn_rows(store, 44)
    healthy = fixed(steps_of(store), requests, rows).clone()
    rows[1:31] = torch.nan
    found = fixed(steps_of(store), requests, rows)
    assert found[1:31].isnan().all()
    assert torch.equal(found[:1], healthy[:1])
    assert torch.equal(found[31:], healthy[31:])


def test_what_fits_no_step_has_none(store: PagedKeyValues) -> None:
    steps = steps_of(store)
    pages = [0] * (CONTEXT_ROWS // PAGE_SIZE + 1)
    assert steps.fitting([PackedRows(0, 128, pages)]) is not None
    assert steps.fitting([PackedRows(0, 127, pages), PackedRows(3, 1, pages), PackedRows(9, 1, pages)]) is None
    assert steps.fitting([PackedRows(CONTEXT_ROWS, 1, pages)]) is None
    assert steps.fitting([PackedRows(0, 1, pages)] * 7) is None
    assert steps.fitting([PackedRows(0, 2, pages)] * 7) is None


def test_a_gpu_that_gathers_contexts_has_no_prefill_steps(tiny_checkpoint) -> None:
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    with FakeTensorMode():
        store = PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=torch.bfloat16, device="cuda:0", kernels=PLAIN)
        steps = PrefillSteps(lambda rows, *_: rows, torch.zeros(1), store, LIMITS, Graphs(torch.device("cpu")))
        assert steps.fitting([PackedRows(0, 2, [0])]) is None


def test_the_host_puts_in_what_the_device_finds(store: PagedKeyValues) -> None:
    requests = [PackedRows(7, 2, [5, 9]), PackedRows(3, 1, [4])]
    step = steps_of(store).fitting(requests)
    assert step is not None
    positions = np.arange(9, dtype=np.float32).reshape(3, 3)
    step.put(requests, RowNumbers(np.array([11, 12, 0]), positions, sampled=[1, 2], unknown=[2]))
    assert step.slots[:3].tolist() == [5 * PAGE_SIZE + 7, 9 * PAGE_SIZE, 4 * PAGE_SIZE + 3]
    assert set(step.slots[3:].tolist()) == {store.spare_slot}
    assert step.token_ids[:4].tolist() == [11, 12, 0, 11]
    assert (step.sampled(2).tolist(), step.unknown(1).tolist()) == ([1, 2], [2])


PAGES = [list(range(9)), list(range(20, 24))]


@pytest.mark.gpu
def test_captured_steps_equal_plain_ones(tiny_checkpoint) -> None:
    """The same two chunks and a row, replayed and called, from the same key/value store."""
    config, checkpoint, device = OmniConfig.from_checkpoint(tiny_checkpoint), Checkpoint(tiny_checkpoint), "cuda"
    talker = Talker.load(checkpoint, config, dtype=torch.float32, device=device)
    text, found = config.require_talker().text, []
    for graphs in (Graphs(torch.device(device)), Uncaptured(torch.device(device))):
        store = PagedKeyValues(text, PAGE_COUNT, PAGE_SIZE, dtype=torch.float32, device=device)
        like = torch.zeros(text.width, device=device)
        with torch.inference_mode():
            steps = PrefillSteps(talker_prefilling(talker, store), like, store, LIMITS, graphs)
            for shares in ([(0, 70), (0, 12)], [(70, 1), (12, 20)]):
                requests = [PackedRows(*share, pages) for share, pages in zip(shares, PAGES, strict=True)]
                rows = torch.randn(82, text.width, generator=torch.Generator().manual_seed(3)).to(device)
                found.append(fixed(steps, requests, rows[: sum(count for _, count in shares)]).clone())
    for replayed, plain in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(replayed, plain, rtol=1e-5, atol=1e-5)


class Uncaptured(Graphs):
    """Calls what would be captured."""

    def captured(self, compute: Callable[[], ResultT]) -> Callable[[], ResultT]:
        return compute


ROWS, REQUESTS = 24, 3


def tables_of(store: PagedKeyValues) -> PrefillTables:
    def requests(most_rows: int) -> PagedRequests:
        column = torch.ones(REQUESTS, dtype=torch.int32)
        return PagedRequests(column, column, column, torch.zeros(REQUESTS, 4, dtype=torch.int32), PAGE_SIZE, most_rows)

    rows = torch.zeros(ROWS, dtype=torch.int64)
    return PrefillTables(rows, rows, torch.ones(ROWS, dtype=torch.int32), requests(1), requests(ROWS))


def store_of(config: DecoderConfig) -> PagedKeyValues:
    return PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=torch.bfloat16, device="cpu")


def test_a_step_never_waits_for_a_value(tiny_checkpoint) -> None:
    """A CUDA graph may not read one on the host; tensors without values cannot be read at all. In the type that a GPU
    computes in."""
    config, checkpoint = OmniConfig.from_checkpoint(tiny_checkpoint), Checkpoint(tiny_checkpoint)
    thinker = Thinker.load(checkpoint, config, dtype=torch.bfloat16)
    talker, talker_width = Talker.load(checkpoint, config, dtype=torch.bfloat16), config.require_talker().text.width
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        positions, store = torch.zeros(3, ROWS), store_of(config.thinker.text)
        rows = torch.zeros(ROWS, thinker.width, dtype=torch.bfloat16)
        compute = thinker_prefilling(thinker, store, torch.zeros(2, ROWS + 8, thinker.width, dtype=torch.bfloat16))
        computed = compute(rows, positions, PrefillBatch(tables_of(store), store))
        store = store_of(config.require_talker().text)
        rows = torch.zeros(ROWS, talker_width, dtype=torch.bfloat16)
        hidden = talker_prefilling(talker, store)(rows, positions, PrefillBatch(tables_of(store), store))
    assert computed.accepted is not None
    assert computed.final.shape == computed.accepted.shape == (ROWS, thinker.width)
    assert hidden.shape == (ROWS, talker_width)


def test_the_plan_and_its_attention_stay_on_a_device_that_is_not_there(tiny_checkpoint) -> None:
    """Nothing is copied from the host either."""
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    with FakeTensorMode(), torch.device("cuda:0"):
        store = PagedKeyValues(config, PAGE_COUNT, PAGE_SIZE, dtype=torch.bfloat16, device="cuda:0", kernels=PLAIN)
        queries = torch.empty(ROWS, config.heads, config.head_width, dtype=torch.bfloat16)
        keys = torch.empty(ROWS, config.kv_heads, config.head_width, dtype=torch.bfloat16)
        attended = PrefillBatch(tables_of(store), store).attend(queries, keys, keys, 0, store)
    assert attended.device.type == "cuda"
    assert attended.shape == (ROWS, config.heads * config.head_width)
