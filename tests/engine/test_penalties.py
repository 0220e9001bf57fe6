"""What a CPU computes from lists of ids is what a device computes from whole vocabularies, to the last bit."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from antiphon.engine.penalties import DensePenalties, History, ListedPenalties, Penalties, penalties

VOCABULARY, STEPS = 61, 150
FACTORS = [(1.3, 0.0, 0.0), (1.0, 0.7, 0.0), (1.0, 0.0, -0.3), (0.8, 0.4, 0.2)]
PROMPTS = [[3, 3, 9], [], list(range(VOCABULARY)), [60]]


def histories(chosen: Sequence[int | None]) -> list[History | None]:
    return [None if each is None else History(FACTORS[each], PROMPTS[each]) for each in chosen]


def step(subject: Penalties, logits: Tensor, ids: Tensor) -> Tensor:
    penalised = subject.penalise(logits.clone())
    subject.record(ids)
    return penalised


@pytest.mark.parametrize("chosen", [[0], [3], [None, 1], [0, 1, 2, 3], [3, None, 0, None, 2]])
def test_lists_and_whole_vocabularies_take_the_same_from_every_logit(chosen: list[int | None]) -> None:
    generator, listed, dense = torch.Generator().manual_seed(7), histories(chosen), histories(chosen)
    for _ in range(STEPS):
        logits = 3 * torch.randn(len(chosen), VOCABULARY, generator=generator)
        ids = torch.randint(VOCABULARY, (len(chosen),), generator=generator)
        by_lists = step(ListedPenalties(listed), logits, ids)
        assert torch.equal(by_lists, step(DensePenalties(dense, logits), logits, ids))


def test_a_cpu_looks_at_lists() -> None:
    assert isinstance(penalties(histories([0, None]), torch.zeros(2, VOCABULARY)), ListedPenalties)
    assert penalties([None, None], torch.zeros(2, VOCABULARY)) is None


def test_a_row_without_an_id_records_none() -> None:
    [history] = histories([1])
    ListedPenalties([history]).record(torch.tensor([-1]))
    assert history is not None
    assert history.listed.ids.tolist() == []
