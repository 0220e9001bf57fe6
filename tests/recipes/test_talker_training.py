"""Training lowers the Talker's losses, which are what they say; a step of it can be one CUDA graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.nano.folders import WorkFolder
from recipes.nano.talker import losses as losses_module
from recipes.nano.talker.corpus import Batch, Corpus
from recipes.nano.talker.history import History
from recipes.nano.talker.losses import LEVEL_WEIGHTS, PART_NAMES, TalkerLosses
from recipes.nano.talker.settings import HistorySettings, TalkerSettings
from recipes.nano.talker.training import Lesson, Speech, held_out_losses, losses_of, train
from recipes.nano.talker.user_prompts import UserPrompt, UserPrompts
from tests.recipes.talker_speech import coded, heard, legend, opening, settings
from tests.recipes.thinker_conversations import CPU, drawn
from tests.recipes.unseen_device import UNSEEN, BroughtFromTheHost, sealed
from tests.reference.transformers_reference import TransformersReference

TRUE_HISTORY = {name: 0.0 for name in HistorySettings.model_fields if name.startswith("most_")}


@pytest.fixture(scope="module")
def prompts(
    nano: Path, nano_reference: TransformersReference, tmp_path_factory: pytest.TempPathFactory
) -> list[UserPrompt]:
    conversations = drawn(typed=3, image=1)
    return heard(nano_reference.model, nano, tmp_path_factory.mktemp("questions"), conversations)


@pytest.fixture
def model(nano: Path) -> Any:
    return TransformersReference(nano).model


def corpus(nano: Path, how: TalkerSettings, device: torch.device = CPU) -> Corpus:
    return Corpus(coded(), legend(nano), how, device)


def wanted(steps: int = 10, **changes: object) -> TalkerSettings:
    return settings(training={"steps": steps, "learning_rate": 1e-3, "warm_up_steps": 2}, **changes)


def measured(losses: TalkerLosses, held_out: Corpus, prompts: Sequence[UserPrompt]) -> dict[str, float]:
    torch.manual_seed(5)
    return dict(held_out_losses(losses, held_out, UserPrompts(prompts, CPU)))


def test_some_steps_on_the_shipped_talker_lower_every_loss(
    model: Any, prompts: list[UserPrompt], nano: Path, tmp_path: Path
) -> None:
    how = wanted()
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    before = measured(losses, speech, prompts)
    train(model, opening(model, nano), prompts, Speech(speech, speech), how, WorkFolder(tmp_path))
    after = measured(losses, speech, prompts)
    assert after["first code"] < 0.7 * before["first code"]
    assert after["residual codes"] < 0.8 * before["residual codes"]
    assert after["first code right"] > before["first code right"]
    assert WorkFolder(tmp_path).state("talker").exists()


def test_only_the_talker_learns(
    model: Any, prompts: list[UserPrompt], nano: Path, tmp_path: Path, nano_reference: TransformersReference
) -> None:
    how = wanted(steps=2)
    train(model, opening(model, nano), prompts, Speech(corpus(nano, how), corpus(nano, how)), how, WorkFolder(tmp_path))
    shipped = nano_reference.model.state_dict()
    moved = {name for name, tensor in model.state_dict().items() if not tensor.equal(shipped[name])}
    trainable = {name for name, _ in model.named_parameters() if name.startswith("talker.")}
    assert moved == trainable


@contextmanager
def in_float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(losses_module, "_computing", lambda _: nullcontext())
        yield


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with in_float32(monkeypatch):
        yield


@torch.no_grad()
def test_losses_are_those_of_every_code_and_of_the_end(
    model: Any, prompts: list[UserPrompt], nano: Path, exact: None
) -> None:
    how = wanted()
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    batch, only = speech.rows(torch.arange(5), frame_limit=20), UserPrompts(prompts[:1], CPU)
    logits = losses.answers(only.draw(5), batch, batch.codes).logits
    end = model.config.talker_config.codec_eos_token_id
    said = [torch.tensor([*one.codes[:, 0].tolist(), end]) for one in coded()]
    of_each = [
        F.cross_entropy(row[: len(codes)], codes, reduction="none") for row, codes in zip(logits, said, strict=True)
    ]
    right = [row[: len(codes)].argmax(dim=-1) == codes for row, codes in zip(logits, said, strict=True)]
    parts = dict(zip(PART_NAMES, losses.held_out(batch, only).tolist(), strict=True))
    assert parts["first code"] == pytest.approx(float(torch.cat(of_each).mean()), rel=1e-5)
    assert parts["first code right"] == pytest.approx(float(torch.cat(right).float().mean()))


@torch.no_grad()
def test_the_loss_of_residual_codes_weighs_the_levels_as_is_said(
    model: Any, prompts: list[UserPrompt], nano: Path, exact: None
) -> None:
    """Of utterances of one frame only that frame can be drawn; transformers' predictor reads it code by code."""
    how = wanted()
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    batch, only = one_frame(speech.rows(torch.arange(5), frame_limit=12)), UserPrompts(prompts[:1], CPU)
    hidden = losses.answers(only.draw(5), batch, batch.codes).hidden[:, 0]
    by_level = torch.stack([by_transformers(model.talker, hidden, batch.codes[:, 0], level) for level in range(1, 16)])
    weights = torch.tensor(LEVEL_WEIGHTS)
    expected = float((by_level * weights).sum() / weights.sum())
    assert float(losses.held_out(batch, only)[1]) == pytest.approx(expected, rel=1e-4)


def one_frame(batch: Batch) -> Batch:
    return Batch(batch.text, batch.text_lengths, batch.codes, torch.ones_like(batch.code_lengths), batch.voices)


def by_transformers(talker: Any, hidden: Tensor, codes: Tensor, level: int) -> Tensor:
    """Scalar: what the code of this level costs after the true ones before it; hidden (n, width), codes (n, 16)."""
    predictor = talker.code_predictor
    embedded = [talker.model.codec_embedding(codes[:, 0])]
    embedded += [predictor.model.codec_embedding[lower - 1](codes[:, lower]) for lower in range(1, level)]
    logits = predictor(inputs_embeds=torch.stack((hidden, *embedded), dim=1)).logits[:, -1]
    return F.cross_entropy(logits, codes[:, level])


def test_it_reads_its_own_draws(
    model: Any, prompts: list[UserPrompt], nano: Path, exact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is cold, its draws are what it finds likeliest."""
    how = wanted(history=TRUE_HISTORY | {"most_own_first_codes": 1.0, "own_temperature": 1e-4})
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    batch, only = speech.rows(torch.arange(5), frame_limit=20), UserPrompts(prompts[:1], CPU)
    told: list[Tensor | None] = []
    unreliable = History.unreliable

    def noted(history: History, batch: Batch, own: Tensor | None) -> Tensor:
        told.append(own)
        return unreliable(history, batch, own)

    monkeypatch.setattr(History, "unreliable", noted)
    losses.training(batch, only)
    with torch.no_grad():
        likeliest = losses.answers(only.draw(5), batch, batch.codes).logits[:, :-1, :256].argmax(dim=-1)
    asked_first, own = told
    assert asked_first is None
    assert own is not None
    assert own.equal(likeliest)


def test_it_is_not_asked_where_it_would_not_be_read(
    model: Any, prompts: list[UserPrompt], nano: Path, exact: None
) -> None:
    """With nothing else to make the history unreliable, training and held-out losses of first codes are the same."""
    how = wanted(history=TRUE_HISTORY)
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    batch, only = speech.rows(torch.arange(5), frame_limit=20), UserPrompts(prompts[:1], CPU)
    trained = losses.training(batch, only).parts
    torch.testing.assert_close(trained[0], losses.held_out(batch, only)[0])


def test_half_precision_stays_close(
    model: Any, prompts: list[UserPrompt], nano: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = wanted()
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    rounded = measured(losses, speech, prompts)
    with in_float32(monkeypatch):
        exactly = measured(losses, speech, prompts)
    for part in ("first code", "residual codes"):
        assert rounded[part] != exactly[part]
        assert rounded[part] == pytest.approx(exactly[part], rel=0.02)


def test_batches_are_drawn_so_that_kinds_and_prompts_have_their_shares(
    model: Any, prompts: list[UserPrompt], nano: Path
) -> None:
    how = wanted(long_prompt_share=0.2, shares={"everyday": 0.5, "composed": 0.3, "phrase": 0.2})
    speech = corpus(nano, how)
    losses = losses_of(model, opening(model, nano), speech, how)
    users = UserPrompts(prompts, CPU)
    lessons = [Lesson(losses, speech, pool, users, share, how) for pool in speech.pools for share in (0.8, 0.2)]
    assert [lesson.batch_size for lesson in lessons] == [4, 4, 2, 2]
    seen = [lesson.weight() * lesson.batch_size for lesson in lessons]
    assert sum(seen) == pytest.approx(1)
    assert sum(seen[1::2]) == pytest.approx(0.2)
    assert sum(seen[:2]) == pytest.approx(speech.pools[0].weight)


def test_a_step_neither_waits_for_a_value_nor_brings_one(
    model: Any, prompts: list[UserPrompt], nano: Path, exact: None
) -> None:
    how = wanted()
    model.to(UNSEEN)
    speech = corpus(nano, how, UNSEEN)
    losses = losses_of(model, opening(model, nano), speech, how)
    lesson = Lesson(losses, speech, speech.pools[0], UserPrompts(prompts, UNSEEN), 1.0, how)
    with sealed():
        loss = lesson.loss()
        loss.total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.talker.parameters())


@pytest.mark.parametrize(
    "careless",
    [
        lambda seen: seen.sum().item(),
        lambda seen: seen[seen > 0],
        lambda seen: seen + torch.tensor(1.0),
        lambda seen: torch.tensor([1.0], device=UNSEEN),
        lambda seen: seen + torch.arange(4).to(UNSEEN),
    ],
)
def test_a_careless_step_would_be_noticed(careless: Callable[[Tensor], object]) -> None:
    seen = torch.zeros(4, device=UNSEEN)
    with pytest.raises((RuntimeError, NotImplementedError, BroughtFromTheHost)), sealed():
        careless(seen)
