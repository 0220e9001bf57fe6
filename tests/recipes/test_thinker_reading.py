"""A batch of any classes is read as transformers reads each conversation alone, on the shipped checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recipes.nano.domain.conversations import CLASSES, Class, Conversation
from recipes.nano.domain.voices import Integers
from recipes.nano.model.dense_experts import use_dense_experts
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.thinker.examples import Batch, Examples
from recipes.nano.thinker.layout import media_of
from recipes.nano.thinker.losses import answer_loss, right_answers
from recipes.nano.thinker.media import Audible
from recipes.nano.thinker.reading import Reader, Reading
from recipes.nano.thinker.recordings import heard_sounds
from tests.recipes.thinker_conversations import Recorded, drawn, prepared
from tests.recipes.told_to_transformers import TransformersInputs
from tests.reference.transformers_reference import TransformersReference

# float32 sums in another order; logits have a deviation of three.
TOLERANCE = 1e-4
AFTER_LAYERS = 3


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def conversations(recorded: Recorded) -> tuple[Conversation, ...]:
    silent = drawn(typed=6, image=4, video=4, sound=4)
    return (*silent, *recorded.spoken, *recorded.memory, *recorded.others)


@pytest.fixture(scope="module")
def heard(conversations: tuple[Conversation, ...], recorded: Recorded) -> Mapping[Audible, Integers]:
    media = [medium for conversation in conversations for medium in media_of(conversation)]
    return heard_sounds((medium for medium in media if isinstance(medium, Audible)), recorded.questions)


@pytest.fixture(scope="module")
def examples(conversations: tuple[Conversation, ...], recorded: Recorded, nano: Path) -> Examples:
    return prepared(conversations, recorded.questions, nano)


@pytest.fixture(scope="module")
def thinker(nano_reference: TransformersReference) -> Any:
    return nano_reference.model.thinker


@pytest.fixture(scope="module")
def reader(thinker: Any, examples: Examples) -> Reader:
    return Reader(ThinkerParts.of(thinker), examples.banks, examples.longest_sound_seconds)


@pytest.fixture(scope="module")
def told(nano: Path) -> TransformersInputs:
    return TransformersInputs(nano)


@pytest.fixture(scope="module")
def batch(examples: Examples) -> Batch:
    """All of them, class after class."""
    return examples.batch({of_class: rows for of_class, rows in examples.classes.items() if len(rows)})


@pytest.fixture(scope="module")
def reading(reader: Reader, batch: Batch) -> Reading:
    with torch.no_grad():
        return reader.read(batch, keep_after_layer=AFTER_LAYERS)


def rows_of(examples: Examples, of_class: Class) -> list[tuple[int, int]]:
    """(row in the batch of all, number of the conversation)"""
    order = [number for rows in examples.classes.values() for number in rows.tolist()]
    return [(order.index(number), number) for number in examples.classes[of_class].tolist()]


@pytest.mark.parametrize("of_class", CLASSES)
@torch.no_grad()
def test_ids_positions_logits_and_kept_rows_are_those_of_transformers(
    of_class: Class,
    examples: Examples,
    batch: Batch,
    reading: Reading,
    conversations: tuple[Conversation, ...],
    heard: Mapping[Audible, Integers],
    told: TransformersInputs,
    thinker: Any,
) -> None:
    assert reading.kept is not None
    for row, number in rows_of(examples, of_class):
        inputs = told.inputs(conversations[number], heard)
        length = inputs["input_ids"].shape[1]
        assert batch.ids[row, :length].equal(inputs["input_ids"][0])
        assert batch.positions[:, row, :length].equal(positions_by_transformers(thinker, inputs))
        output = thinker(**inputs, output_hidden_states=True)
        torch.testing.assert_close(reading.logits[row, :length], output.logits[0], atol=TOLERANCE, rtol=0)
        kept = output.hidden_states[AFTER_LAYERS][0]
        torch.testing.assert_close(reading.kept[row, :length], kept, atol=TOLERANCE, rtol=0)


def positions_by_transformers(thinker: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """float32 (3, tokens)"""
    features = inputs.get("feature_attention_mask")
    positions, _ = thinker.get_rope_index(
        inputs["input_ids"],
        inputs.get("image_grid_thw"),
        inputs.get("video_grid_thw"),
        inputs["attention_mask"],
        False,
        None if features is None else features.sum(-1),
        inputs.get("video_second_per_grid"),
    )
    return positions.expand(3, 1, -1)[:, 0].float()


@torch.no_grad()
def test_a_conversation_is_read_the_same_whoever_stands_beside_it(
    examples: Examples, reader: Reader, reading: Reading, batch: Batch
) -> None:
    for of_class in CLASSES:
        row, number = rows_of(examples, of_class)[-1]
        alone = reader.read(examples.batch({of_class: torch.tensor([number])})).logits[0]
        length = int(batch.learnt[row].nonzero().max()) + 1
        torch.testing.assert_close(alone[:length], reading.logits[row, :length], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_the_loss_of_an_answer_is_the_one_that_transformers_computes(
    examples: Examples,
    reader: Reader,
    conversations: tuple[Conversation, ...],
    heard: Mapping[Audible, Integers],
    told: TransformersInputs,
    thinker: Any,
) -> None:
    for number in examples.classes["image"].tolist():
        inputs = told.inputs(conversations[number], heard)
        batch = examples.batch({"image": torch.tensor([number])})
        length = inputs["input_ids"].shape[1]
        labels = inputs["input_ids"].masked_fill(~batch.learnt[:, :length], -100)
        expected = thinker(**inputs, labels=labels).loss
        torch.testing.assert_close(answer_loss(reader.read(batch).logits, batch), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_answer_is_right_where_transformers_would_give_it(
    examples: Examples,
    conversations: tuple[Conversation, ...],
    heard: Mapping[Audible, Integers],
    told: TransformersInputs,
    reading: Reading,
    batch: Batch,
    nano_reference: TransformersReference,
) -> None:
    right = right_answers(reading.logits, batch).tolist()
    for of_class in ("typed", "spoken", "image"):
        for row, number in rows_of(examples, of_class):
            inputs = told.inputs(conversations[number], heard)
            first = int(batch.last_answers[row])
            wanted = inputs["input_ids"][0, first:]
            answer = generated(nano_reference, inputs, first, most_tokens=len(wanted))
            assert right[row] == (answer == wanted.tolist())


def generated(
    reference: TransformersReference, inputs: Mapping[str, Tensor], prompt_length: int, most_tokens: int
) -> list[int]:
    prompt = {**inputs, "input_ids": inputs["input_ids"][:, :prompt_length]}
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    ids = reference.model.thinker.generate(
        **prompt, do_sample=False, max_new_tokens=most_tokens, eos_token_id=reference.model.config.im_end_token_id
    )
    return ids[0, prompt_length:].tolist()


@torch.no_grad()
def test_experts_computed_densely_read_the_same(nano: Path, batch: Batch, examples: Examples, reading: Reading) -> None:
    dense = TransformersReference(nano).model.thinker
    use_dense_experts(dense)
    again = Reader(ThinkerParts.of(dense), examples.banks, examples.longest_sound_seconds).read(batch)
    tokens = batch.ids != batch.ids[0, -1]
    torch.testing.assert_close(again.logits[tokens], reading.logits[tokens], atol=TOLERANCE, rtol=0)
