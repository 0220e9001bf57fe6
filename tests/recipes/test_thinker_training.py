"""Training lowers the loss, goes on exactly after an interruption, and says what it lacks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from recipes.nano.domain.conversations import Class, Conversation
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import build_model, config_for
from recipes.nano.model.dense_experts import use_dense_experts
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.speech.store import shard_path, shards
from recipes.nano.thinker import losses, reading
from recipes.nano.thinker.examples import Examples
from recipes.nano.thinker.losses import Transcriber
from recipes.nano.thinker.reading import Reader
from recipes.nano.thinker.settings import ThinkerSettings
from recipes.nano.thinker.teacher_forcing import scores
from recipes.nano.thinker.training import Lesson, Splits, train
from recipes.nano.training.step import Loss
from tests.recipes.thinker_conversations import Recorded, drawn, prepared, settings
from tests.reference.transformers_reference import TransformersReference

BATCH: dict[Class, int] = {"typed": 3, "spoken": 2, "spoken_memory": 1, "image": 2, "video": 1, "sound": 1}
SMALL_BATCH: dict[Class, int] = {"typed": 1, "spoken": 1, "image": 1}
WIDTH = 256


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("questions"))


def wanted(batch: Mapping[Class, int] = BATCH, **training: float) -> ThinkerSettings:
    return settings(training={"learning_rate": 2e-3, "warm_up_steps": 2, "steps": 6} | training, batch=batch)


EVERY_STEP_SAVED = wanted(SMALL_BATCH, steps=4, save_every_minutes=1e-9, validations=1)


@pytest.fixture(scope="module")
def splits(recorded: Recorded, nano: Path) -> Splits:
    conversations = (*drawn(typed=8, image=4, video=2, sound=2), *recorded.spoken, *recorded.memory)
    examples = prepared(conversations, recorded.questions, nano, wanted())
    return Splits(examples, examples)


class Pupil:
    """A Thinker drawn from one seed, always the same, or as it was shipped."""

    def __init__(self, nano: Path, *, shipped: bool = False) -> None:
        model = TransformersReference(nano).model if shipped else build_model(config_for(nano), seed=1)
        self.thinker: Any = model.thinker
        torch.manual_seed(1)
        self.transcriber = Transcriber(WIDTH, self.thinker.config.text_config.vocab_size)

    def learn(self, splits: Splits, folder: Path, how: ThinkerSettings) -> None:
        train(self.thinker, self.transcriber, splits, how, WorkFolder(folder))

    def lesson(self, examples: Examples) -> Lesson:
        present = {of_class: count for of_class, count in BATCH.items() if len(examples.classes[of_class])}
        return Lesson(self.thinker, self.transcriber, examples, wanted(present))


def measured(lesson: Lesson) -> list[float]:
    """Losses of answers and transcripts, over the same two batches."""
    torch.manual_seed(5)
    parts = [lesson().parts.detach() for _ in range(2)]
    return torch.stack(parts).mean(dim=0)[:2].tolist()


@pytest.mark.slow
def test_some_steps_from_nothing_lower_both_losses(splits: Splits, nano: Path, tmp_path: Path) -> None:
    pupil = Pupil(nano)
    before = measured(pupil.lesson(splits.training))
    pupil.learn(splits, tmp_path, wanted())
    after = measured(pupil.lesson(splits.training))
    assert all(loss < 0.8 * first for loss, first in zip(after, before, strict=True))


def test_the_shipped_thinker_learns_answers_that_it_does_not_know(
    recorded: Recorded, nano: Path, tmp_path: Path
) -> None:
    unheard_of = [otherwise_answered(conversation) for conversation in (*drawn(image=2), *recorded.spoken[:2])]
    how = wanted({"image": 1, "spoken": 1}, steps=6, learning_rate=5e-4)
    examples = prepared(unheard_of, recorded.questions, nano, how)
    pupil = Pupil(nano, shipped=True)
    before = measured(pupil.lesson(examples))
    pupil.learn(Splits(examples, examples), tmp_path, how)
    after = measured(pupil.lesson(examples))
    assert before[0] > 2
    assert all(loss < 0.6 * first for loss, first in zip(after, before, strict=True))


def otherwise_answered(conversation: Conversation) -> Conversation:
    return replace(conversation, turns=(replace(conversation.turns[0], answer="Thursday comes before the cow."),))


class Interrupted(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    splits: Splits, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halves = Pupil(nano), Pupil(nano)
    whole.learn(splits, tmp_path / "whole", EVERY_STEP_SAVED)

    steps, teach = iter(range(2)), Lesson.__call__

    def teach_half(lesson: Lesson) -> Loss:
        if next(steps, None) is None:
            raise Interrupted
        return teach(lesson)

    with monkeypatch.context() as patched:
        patched.setattr(Lesson, "__call__", teach_half)
        with pytest.raises(Interrupted):
            halves.learn(splits, tmp_path / "halves", EVERY_STEP_SAVED)
    again = Pupil(nano)
    again.learn(splits, tmp_path / "halves", EVERY_STEP_SAVED)
    for modules in ((whole.thinker, again.thinker), (whole.transcriber, again.transcriber)):
        theirs = modules[1].state_dict()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in modules[0].state_dict().items())


@torch.no_grad()
def test_the_shipped_thinker_answers_as_it_was_measured(splits: Splits, nano_reference: TransformersReference) -> None:
    reader = Reader(ThinkerParts.of(nano_reference.model.thinker), splits.held_out.banks, longest_sound_seconds=5)
    measured = scores(reader, splits.held_out, at_once=3)
    assert {of_class: score.asked for of_class, score in measured.items()} == {
        "typed": 8, "spoken": 6, "spoken_memory": 3, "image": 4, "video": 2, "sound": 2
    }  # fmt: skip
    assert sum(score.right for score in measured.values()) >= 20


def test_classes_of_a_step_must_have_conversations(recorded: Recorded, nano: Path) -> None:
    pupil = Pupil(nano)
    examples = prepared(drawn(typed=4), recorded.questions, nano)
    with pytest.raises(RecipeError, match="of the class spoken, and none is left"):
        Lesson(pupil.thinker, pupil.transcriber, examples, wanted(SMALL_BATCH))


def test_conversations_that_are_too_long_are_left_out(recorded: Recorded, nano: Path) -> None:
    lengths = prepared(recorded.spoken, recorded.questions, nano).banks.sounds.lengths[1:]
    short = prepared(recorded.spoken, recorded.questions, nano, settings(longest_sound_seconds=2))
    assert 0 < len(short.ids) == int((lengths <= 2 * 16_000).sum()) < len(recorded.spoken)
    few_tokens = prepared(recorded.spoken, recorded.questions, nano, settings(most_tokens=50))
    assert 0 < len(few_tokens.ids) < len(recorded.spoken)
    with pytest.raises(RecipeError, match="None of 6 conversations fits"):
        prepared(recorded.spoken, recorded.questions, nano, settings(most_tokens=32))


def test_missing_and_other_recordings_are_named(recorded: Recorded, nano: Path, tmp_path: Path) -> None:
    first, second = shards(recorded.questions)
    shard_path(tmp_path, 0).write_bytes(first.read_bytes())
    with pytest.raises(RecipeError, match="expected 6 recordings of what users say, found 4"):
        prepared(recorded.spoken, tmp_path, nano)
    shard_path(tmp_path, 0).write_bytes(second.read_bytes())
    with pytest.raises(RecipeError, match="expected recording 0 to be"):
        prepared(recorded.spoken, tmp_path, nano)


def test_a_step_never_waits_for_a_value(splits: Splits, nano: Path) -> None:
    """A CUDA graph may not read one on the host; tensors without values cannot be read at all."""
    pupil = Pupil(nano)
    use_dense_experts(pupil.thinker)
    lesson = pupil.lesson(splits.training)
    with FakeTensorMode(allow_non_fake_inputs=True):
        lesson().total.backward()


def test_half_precision_stays_close(splits: Splits, nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU runs it: bfloat16 products, float32 between them."""
    lesson = Pupil(nano).lesson(splits.training)
    exact = measured(lesson)
    for module in (reading, losses):
        monkeypatch.setattr(module, "autocast", lambda _: torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
    rounded = measured(lesson)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)
