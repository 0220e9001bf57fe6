"""Steps of fixed shape: how they are chosen and filled, and what a captured one may not do."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from antiphon.engine.decode_steps import DecodeLimits, DecodeRow, DecodeSteps
from antiphon.engine.graphs import Graphs, InputBlock, Ladder, doubling
from antiphon.engine.sampler import Draws, draw_alike
from antiphon.model.attention import PagedKeyValues
from antiphon.model.code_predictor import CodePredictor
from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.talker import Talker
from antiphon.model.thinker import Thinker
from antiphon.model.weights import Checkpoint
from services.talker.runner import decoding as talker_decoding
from services.thinker.runner import decoding as thinker_decoding

CPU = torch.device("cpu")
skips_without_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="captures on a CUDA device")
PAGE_SIZE, PAGES = 4, 64


def test_the_least_step_with_room_is_taken_and_none_beyond_the_last() -> None:
    made: list[tuple[int, ...]] = []

    def make(shape: tuple[int, ...]) -> tuple[int, ...]:
        made.append(shape)
        return shape

    ladder = Ladder([(requests, pages) for requests in doubling(6) for pages in (2, 8)], make)
    assert made[0] == (6, 8), "the largest is made first"
    assert [ladder.fitting(*sizes) for sizes in ((1, 1), (3, 2), (5, 3), (6, 8))] == [(1, 2), (4, 2), (6, 8), (6, 8)]
    assert ladder.fitting(7, 1) is None
    assert ladder.fitting(1, 9) is None


@pytest.mark.parametrize(
    ("most", "first", "factor", "sizes"),
    [(1, 1, 2, [1]), (8, 1, 2, [1, 2, 4, 8]), (9, 1, 2, [1, 2, 4, 8, 9]), (5000, 512, 4, [512, 2048, 5000])],
)
def test_sizes_double_up_to_the_most(most: int, first: int, factor: int, sizes: list[int]) -> None:
    assert doubling(most, first, factor) == sizes


def test_what_is_written_on_the_host_is_read_where_the_device_always_looks() -> None:
    block = InputBlock(CPU)
    odd, numbers, table = block.field(np.int32, 3), block.field(np.float32, 2, 2), block.field(np.int64, 5)
    block.seal()
    seen = [odd.device, numbers.device, table.device]
    for step in range(2):
        block.begin()
        odd.host[:], numbers.host[:], table.host[:] = step + 1, step + 0.5, step - 7
        block.send()
        assert [each.flatten()[-1].item() for each in seen] == [step + 1, step + 0.5, step - 7]
    assert [(each.dtype, tuple(each.shape)) for each in seen] == [
        (torch.int32, (3,)),
        (torch.float32, (2, 2)),
        (torch.int64, (5,)),
    ]


def test_a_step_is_told_where_each_row_is_kept_and_what_it_sees(tiny_checkpoint) -> None:
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    store = PagedKeyValues(config, PAGES, PAGE_SIZE, dtype=torch.float32, device=CPU)
    told: list[tuple[Tensor, ...]] = []

    def compute(fed: Tensor, token_ids: Tensor, positions: Tensor, batch: DecodeBatch) -> Tensor:
        told.append(tuple(each.clone() for each in (fed, token_ids, positions, batch.slots, batch.lengths)))
        return batch.page_tables.clone()

    steps = DecodeSteps(compute, torch.zeros(()), store, DecodeLimits(4, 32), Graphs(CPU))
    rows = [DecodeRow(5, [9, 3, 50], 7.0, 11), DecodeRow(0, [2], 1.5, 12), DecodeRow(8, [4, 5, 6], 2.0, 13)]
    step = steps.fitting(rows)
    assert step is not None
    tables = step.run(rows, [torch.tensor(float(place)) for place in range(3)])
    fed, token_ids, positions, slots, lengths = told[-1]
    assert fed.tolist() == [0.0, 1.0, 2.0, 0.0]
    assert token_ids.tolist() == [11, 12, 13, 11]
    assert positions.tolist() == [[7.0, 1.5, 2.0, 7.0]] * 3
    assert slots.tolist() == [3 * PAGE_SIZE + 1, 2 * PAGE_SIZE, 6 * PAGE_SIZE, store.spare_slot]
    assert lengths.tolist() == [6, 1, 9, 6]
    assert [row[:3] for row in tables.tolist()] == [[9, 3, 9], [2, 2, 2], [4, 5, 6], [9, 3, 9]]
    assert steps.fitting([DecodeRow(32, [0] * 9, 0.0, 0)]) is None
    assert steps.fitting(rows * 2) is None


def store_of(config: DecoderConfig) -> PagedKeyValues:
    return PagedKeyValues(config, PAGES, PAGE_SIZE, dtype=torch.bfloat16, device=CPU)


def batch_of(store: PagedKeyValues, requests: int) -> DecodeBatch:
    slots, lengths = torch.zeros(requests, dtype=torch.int64), torch.ones(requests, dtype=torch.int32)
    return DecodeBatch(slots, torch.zeros(requests, 4, dtype=torch.int32), lengths, store)


@pytest.fixture(scope="module")
def stages(tiny_checkpoint) -> tuple[OmniConfig, Thinker, Talker]:
    config, checkpoint = OmniConfig.from_checkpoint(tiny_checkpoint), Checkpoint(tiny_checkpoint)
    thinker = Thinker.load(checkpoint, config, dtype=torch.bfloat16)
    return config, thinker, Talker.load(checkpoint, config, dtype=torch.bfloat16)


# More than a CPU takes one by one: of so many pairs of rows and experts it computes as a GPU does.
REQUESTS = 16


def test_decode_steps_never_wait_for_a_value(stages: tuple[OmniConfig, Thinker, Talker]) -> None:
    """A CUDA graph may not read one on the host; tensors without values cannot be read at all. In the type that a GPU
    computes in."""
    config, thinker, talker = stages
    width = config.require_talker().text.width
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        ids, positions = torch.zeros(REQUESTS, dtype=torch.int64), torch.zeros(3, REQUESTS)
        store = store_of(config.thinker.text)
        logits = thinker_decoding(thinker, store)(ids, ids, positions, batch_of(store, REQUESTS))
        store = store_of(config.require_talker().text)
        sums = torch.zeros(REQUESTS, width, dtype=torch.bfloat16)
        hidden, code_logits = talker_decoding(talker, store)(sums, ids, positions, batch_of(store, REQUESTS))
    assert logits.shape == (REQUESTS, config.thinker.text.vocabulary)
    assert hidden.shape == (REQUESTS, width)
    assert len(code_logits) == REQUESTS


@pytest.mark.parametrize("candidates", [0, 50])
def test_a_whole_frame_and_its_sampling_never_wait_for_a_value(
    stages: tuple[OmniConfig, Thinker, Talker], candidates: int
) -> None:
    predictor: CodePredictor = stages[2].code_predictor
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=True):
        draws = Draws(torch.ones(REQUESTS, 1), torch.full((REQUESTS, 1), 0.8))
        uniforms = torch.rand(predictor.residual_groups, REQUESTS).unbind()
        codes, sums = predictor.predict(
            predictor.new_rows(REQUESTS),
            torch.zeros(REQUESTS, dtype=torch.int64),
            lambda logits, group: draw_alike(candidates, draws, logits, uniforms[group - 1]),
            predictor.room_for(REQUESTS),
        )
    assert codes.shape == (REQUESTS, predictor.residual_groups + 1)
    assert len(sums) == REQUESTS


@pytest.mark.gpu
@skips_without_gpu
def test_a_captured_step_gives_what_the_plain_one_gives() -> None:
    device = torch.device("cuda")
    graphs, block = Graphs(device), InputBlock(device)
    numbers = block.field(np.float32, 4)
    block.seal()
    total = numbers.device
    captured = graphs.captured(lambda: (total * 2).cumsum(0))
    for step in range(5):
        block.begin()
        numbers.host[:] = np.arange(4) + step
        block.send()
        assert captured().tolist() == np.cumsum(2 * (np.arange(4) + step)).tolist()


@pytest.mark.gpu
@skips_without_gpu
def test_captured_decode_steps_equal_plain_ones(tiny_checkpoint) -> None:
    """The same three steps, replayed and called, from the same key/value store."""
    config, checkpoint, device = OmniConfig.from_checkpoint(tiny_checkpoint), Checkpoint(tiny_checkpoint), "cuda"
    thinker = Thinker.load(checkpoint, config, dtype=torch.float32, device=device)
    found = []
    for graphs in (Graphs(torch.device(device)), _Plain(torch.device(device))):
        store = PagedKeyValues(config.thinker.text, PAGES, PAGE_SIZE, dtype=torch.float32, device=device)
        like = torch.zeros((), dtype=torch.int64, device=device)
        steps = DecodeSteps(thinker_decoding(thinker, store), like, store, DecodeLimits(4, 32), graphs)
        with torch.inference_mode():
            for row in range(3):
                rows = [DecodeRow(row, [page], float(row), 0) for page in (3, 8, 1)]
                step = steps.fitting(rows)
                assert step is not None
                ids = [torch.tensor(each + row, device=device) for each in (5, 6, 7)]
                found.append(step.run(rows, ids)[:3].clone())
    for replayed, plain in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(replayed, plain, rtol=1e-5, atol=1e-5)


class _Plain(Graphs):
    """Calls what would be captured."""

    def captured(self, compute):  # type: ignore[no-untyped-def]
        return compute
