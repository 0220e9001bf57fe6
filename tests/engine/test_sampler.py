"""The sampler against transformers' own logits processors, and each row against its neighbours."""

import random

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from antiphon.engine.sampler import NO_ID, Sampler, SamplerState, SamplingParameters, drawing

VOCABULARY = 97
DRAWS = 4000
SUPPRESSED = [3, 50, 96]

KINDS = {
    "plain": SamplingParameters(temperature=1.0),
    "warm": SamplingParameters(temperature=1.7),
    "top-k": SamplingParameters(temperature=0.8, top_k=7),
    "top-p": SamplingParameters(temperature=1.0, top_p=0.7),
    "both": SamplingParameters(temperature=0.9, top_k=50, top_p=0.8),
    "narrow": SamplingParameters(temperature=1.0, top_p=0.01),
    "one": SamplingParameters(temperature=1.0, top_k=1),
    "wide": SamplingParameters(temperature=1.0, top_k=1000),
    "penalised": SamplingParameters(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.3),
}


def logits_of(seed: int, rows: int = 1) -> Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def processed(logits: Tensor, parameters: SamplingParameters, seen: list[int]) -> Tensor:
    """The probabilities that transformers would draw from; logits (1, V)."""
    processors = LogitsProcessorList()
    if parameters.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(parameters.repetition_penalty))
    processors.append(SuppressTokensLogitsProcessor(SUPPRESSED))
    processors.append(TemperatureLogitsWarper(parameters.temperature))
    if parameters.top_k:
        processors.append(TopKLogitsWarper(parameters.top_k))
    if parameters.top_p < 1:
        processors.append(TopPLogitsWarper(parameters.top_p))
    scores: Tensor = processors(torch.tensor([seen], dtype=torch.int64), logits.clone())
    return scores.softmax(-1)[0]


class Stepping(random.Random):
    """Uniforms that step through [0, 1) evenly, so that how often an id is drawn is its probability."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def random(self) -> float:
        return (self.place + 0.5) / DRAWS


def stepping_states(parameters: SamplingParameters, seen: list[int]) -> list[SamplerState]:
    states = [SamplerState(parameters, seen) for _ in range(DRAWS)]
    for place, state in enumerate(states):
        state.generator = Stepping(place)
    return states


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_follow_the_distribution_of_transformers(kind: str, seed: int) -> None:
    parameters, logits, seen = KINDS[kind], logits_of(seed), [5, 9, 9, 41]
    sampler = Sampler(torch.tensor(SUPPRESSED))
    ids = sampler.sample(logits.expand(DRAWS, -1).clone(), stepping_states(parameters, seen))
    drawn = torch.bincount(torch.tensor(ids), minlength=VOCABULARY) / DRAWS
    expected = processed(logits, parameters, seen)
    assert (drawn - expected).abs().max() < 2 / DRAWS
    assert not drawn[expected == 0].any()


def test_random_draws_pass_a_chi_square_test() -> None:
    parameters, logits = SamplingParameters(temperature=1.0, top_k=8, seed=11), logits_of(4)
    state, sampler, draws = SamplerState(parameters), Sampler(torch.tensor(SUPPRESSED)), 3000
    ids = [sampler.sample(logits.clone(), [state])[0] for _ in range(draws)]
    expected = processed(logits, parameters, []) * draws
    counts = torch.bincount(torch.tensor(ids), minlength=VOCABULARY)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    # 24.3 is the 99.9 % point for 7 degrees of freedom.
    assert ((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum() < 24.3


@pytest.mark.parametrize("repetition_penalty", [1.0, 1.05, 2.0])
def test_greedy_is_the_argmax_of_transformers_processors(repetition_penalty: float) -> None:
    parameters = SamplingParameters(repetition_penalty=repetition_penalty)
    state, sampler, seen = SamplerState(parameters, [7, 8]), Sampler(torch.tensor(SUPPRESSED)), [7, 8]
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(repetition_penalty)])
    processors.append(SuppressTokensLogitsProcessor(SUPPRESSED))
    for seed in range(200):  # enough for the history to outgrow its first buffer
        logits = logits_of(seed)
        expected = int(processors(torch.tensor([seen]), logits.clone()).argmax())
        assert sampler.sample(logits, [state]) == [expected]
        seen.append(expected)


def test_presence_and_frequency_look_at_generated_ids_only() -> None:
    parameters, logits = (
        SamplingParameters(presence_penalty=1.0, frequency_penalty=0.25),
        torch.tensor([[5.0, 4.5, 3.6]]),
    )
    state, sampler = SamplerState(parameters, [0]), Sampler()
    # 5 and 4.5 fall to 3.75 and 3.25 once drawn, then by 0.25 a draw.
    assert [sampler.sample(logits.clone(), [state])[0] for _ in range(5)] == [0, 1, 0, 2, 0]


def test_logit_bias_moves_single_ids() -> None:
    forced = SamplerState(SamplingParameters(logit_bias=((4, 100.0),)))
    banned = SamplerState(SamplingParameters(logit_bias=((int(logits_of(0).argmax()), -100.0),)))
    plain = SamplerState(SamplingParameters())
    ids = Sampler().sample(logits_of(0).expand(3, -1).clone(), [forced, banned, plain])
    best = logits_of(0)[0].topk(2).indices.tolist()
    assert ids == [4, best[1], best[0]]


def test_suppression_is_stronger_than_bias() -> None:
    state = SamplerState(SamplingParameters(logit_bias=((3, 100.0),)))
    assert Sampler(torch.tensor(SUPPRESSED)).sample(logits_of(0), [state]) != [3]


def mixed_rows() -> list[SamplingParameters]:
    kinds = [*KINDS.values(), SamplingParameters(), SamplingParameters(repetition_penalty=1.2)]
    return [
        SamplingParameters(
            temperature=kind.temperature,
            top_k=kind.top_k,
            top_p=kind.top_p,
            repetition_penalty=kind.repetition_penalty,
            frequency_penalty=0.1 * (seed % 3),
            seed=seed,
        )
        for seed, kind in enumerate(kinds * 3)
    ]


@pytest.mark.parametrize("ties", [False, True])
def test_neighbours_change_nothing(ties: bool) -> None:
    """Each request alone, and all in shuffled batches: the same ids, also where logits tie."""
    rows, sampler, steps = mixed_rows(), Sampler(torch.tensor(SUPPRESSED)), 12
    given = [logits_of(100 + step, len(rows)) for step in range(steps)]
    if ties:
        given = [logits.round() for logits in given]
    alone = []
    for row, parameters in enumerate(rows):
        state = SamplerState(parameters, [row])
        alone.append([sampler.sample(logits[row : row + 1].clone(), [state])[0] for logits in given])
    dice, states = random.Random(3), [SamplerState(parameters, [row]) for row, parameters in enumerate(rows)]  # noqa: S311
    together: list[list[int]] = [[] for _ in rows]
    for logits in given:
        order = list(range(len(rows)))
        dice.shuffle(order)
        for part in (order[: len(order) // 3], order[len(order) // 3 :]):
            for row, token in zip(part, sampler.sample(logits[part], [states[row] for row in part]), strict=True):
                together[row].append(token)
    assert together == alone


@pytest.mark.parametrize("kind", [*KINDS, "greedy"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_no_numbers_give_no_id_and_spoil_no_other(kind: str, broken: float) -> None:
    parameters = KINDS.get(kind, SamplingParameters())
    states = [SamplerState(parameters) for _ in range(3)]
    for state in states:
        state.generator = Stepping(17)
    logits = logits_of(0).expand(3, -1).clone()
    logits[1, 5 if broken > 0 or broken != broken else slice(None)] = broken
    before, unreadable, after = Sampler(torch.tensor(SUPPRESSED)).sample(logits, states)
    assert before == after >= 0
    assert unreadable == NO_ID


def test_the_same_seed_gives_the_same_draws_and_no_seed_does_not() -> None:
    def draws(seed: int | None) -> list[int]:
        state = SamplerState(SamplingParameters(temperature=1.5, seed=seed))
        return [Sampler().sample(logits_of(step), [state])[0] for step in range(30)]

    assert draws(5) == draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_neighbours_change_nothing_where_rounding_sums_to_more_than_one() -> None:
    """The kept ids of a row without top-p are all of its own, also beside a row that has one."""
    logits, uniform = torch.tensor([[0.0, 0.0, 0.0, *[-14.0] * 20]]), torch.tensor([1 - 2**-24])
    plain, nucleus = SamplingParameters(temperature=1.0, top_k=23), SamplingParameters(1.0, 23, top_p=0.5)
    for seed in range(200):
        row = logits + 0.5 * logits_of(seed)[:, :23]
        alone = drawing([plain], row.device)(row, uniform)
        beside = drawing([plain, nucleus], row.device)(row.expand(2, -1), uniform.expand(2))
        assert int(beside[0]) == int(alone[0])


@pytest.mark.parametrize("temperature", [1e-38, 1e-45, 1e-60])
@pytest.mark.parametrize("top_k", [0, 5])
def test_tiny_temperatures_are_greedy_and_do_not_overflow(temperature: float, top_k: int) -> None:
    state = SamplerState(SamplingParameters(temperature=temperature, top_k=top_k))
    assert Sampler().sample(1e4 * logits_of(0), [state]) == [int(logits_of(0).argmax())]


@pytest.mark.parametrize("kind", KINDS)
def test_the_highest_uniform_never_reaches_an_impossible_id(kind: str) -> None:
    logits = torch.full((1, VOCABULARY), -torch.inf)
    logits[0, 10:13] = torch.tensor([1.0, 3.0, 2.0])
    for uniform in (0.0, 0.5, 1 - 2**-24, 1.0):
        ids = drawing([KINDS[kind]], logits.device)(logits, torch.tensor([uniform]))
        assert int(ids) in (10, 11, 12)


def test_residual_codes_use_one_prepared_drawing_for_many_steps() -> None:
    rows = [SamplingParameters(1.0, 50, 0.8), SamplingParameters(), SamplingParameters(1.0, 50, 0.8)]
    draw, uniforms = drawing(rows, torch.device("cpu")), torch.tensor([0.9, 0.0, 0.2])
    for step in range(15):
        logits = logits_of(step, 3)
        alone = [drawing([row], logits.device)(logits[i : i + 1], uniforms[i : i + 1]) for i, row in enumerate(rows)]
        assert draw(logits, uniforms).tolist() == [int(each) for each in alone]
