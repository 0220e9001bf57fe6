"""What the Talker reads while it is trained is what transformers feeds it in `generate`; its logits are the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from recipes.nano.domain.conversations import Conversation
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.talker.code_predictor import residual_logits
from recipes.nano.talker.corpus import Batch, Corpus
from recipes.nano.talker.losses import Answers, TalkerLosses
from recipes.nano.talker.parts import TalkerParts
from recipes.nano.talker.rows import OPENING_ROWS, Laid, TalkerRows
from recipes.nano.talker.training import losses_of
from recipes.nano.talker.user_prompts import UserPrompts, Users
from recipes.nano.thinker.layout import media_of
from recipes.nano.thinker.media import Audible
from recipes.nano.thinker.recordings import heard_sounds
from tests.recipes.talker_speech import coded, heard, legend, opening, settings
from tests.recipes.thinker_conversations import CPU, Recorded, drawn, prepared
from tests.recipes.told_to_transformers import TransformersInputs
from tests.reference.transformers_reference import ReferenceTurn, TransformersReference

# float32 sums in another order. Rows of media reach 3500, logits have a deviation of four.
ROWS_TOLERANCE, LOGITS_TOLERANCE = 1e-3, 2e-4
MOST_FRAMES = 8
VOICE, SPEAKER = 1, "Ethan"


@dataclass(frozen=True)
class Spoken:
    """What transformers' Talker read and gave while it spoke."""

    turn: ReferenceTurn
    rows: Tensor  # (n, width)
    positions: Tensor  # (3, n)
    logits: Tensor  # (n, code vocabulary)
    residual_logits: Tensor  # (frames, 15, codes)

    @property
    def text(self) -> Tensor:
        """int64 (tokens), without the end of the turn."""
        return torch.tensor(self.turn.text_ids[:-1])

    @property
    def codes(self) -> Tensor:
        """int64 (frames, 16)"""
        assert self.turn.codes is not None
        return self.turn.codes


@contextmanager
def watched(talker: Any) -> Iterator[dict[str, list[Tensor]]]:
    """While it speaks, notes what goes into the model and out of the heads."""
    noted: dict[str, list[Tensor]] = {"rows": [], "positions": [], "logits": [], "residual logits": []}

    def reads(_: nn.Module, __: tuple[Tensor, ...], given: dict[str, Tensor]) -> None:
        noted["rows"].append(given["inputs_embeds"][0])
        noted["positions"].append(given["position_ids"][-3:, 0].float())

    def note(name: str) -> Any:
        return lambda _, __, logits: noted[name].append(logits[0])

    handles = [
        talker.model.register_forward_pre_hook(reads, with_kwargs=True),
        talker.codec_head.register_forward_hook(note("logits")),
        *(head.register_forward_hook(note("residual logits")) for head in talker.code_predictor.lm_head),
    ]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def conversations(recorded: Recorded) -> dict[str, Conversation]:
    """The typed one has a system prompt, which the Talker does not read."""
    typed = next(one for one in drawn(typed=40) if one.system)
    return {"typed": typed, "spoken": recorded.spoken[0], "picture": drawn(image=1)[0], "two turns": recorded.memory[0]}


@pytest.fixture(scope="module")
def spoken(
    conversations: dict[str, Conversation], recorded: Recorded, nano: Path, nano_reference: TransformersReference
) -> list[Spoken]:
    told = TransformersInputs(nano)
    return [speak(one, told, recorded, nano_reference) for one in conversations.values()]


def speak(
    conversation: Conversation, told: TransformersInputs, recorded: Recorded, reference: TransformersReference
) -> Spoken:
    sounds = [medium for medium in media_of(conversation) if isinstance(medium, Audible)]
    inputs = told.inputs(conversation, heard_sounds(sounds, recorded.questions))
    answered = int(prepared([conversation], recorded.questions, reference.checkpoint).last_answers[0])
    inputs["input_ids"] = inputs["input_ids"][:, :answered]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with watched(reference.model.talker) as noted:
        turn = reference.generate(inputs, max_frames=MOST_FRAMES, speaker=SPEAKER)
    return Spoken(
        turn=turn,
        rows=torch.cat(noted["rows"]),
        positions=torch.cat(noted["positions"], dim=1),
        logits=torch.cat(noted["logits"]),
        residual_logits=torch.stack([logits[-1] for logits in noted["residual logits"]]).view(-1, 15, 256),
    )


@pytest.fixture(scope="module")
def model(nano: Path) -> Any:
    return TransformersReference(nano).model


@pytest.fixture(scope="module")
def users(conversations: dict[str, Conversation], model: Any, recorded: Recorded, nano: Path) -> Users:
    """With the Thinker's rows in float32; the recipe rounds them."""
    prompts = heard(model, nano, recorded.questions, [*conversations.values()])
    rounded = UserPrompts(prompts, CPU).rows(torch.arange(len(prompts)))
    return replace(rounded, hidden=pad_sequence([prompt.hidden for prompt in prompts], batch_first=True))


@pytest.fixture(scope="module")
def batch(spoken: Sequence[Spoken]) -> Batch:
    """All of them side by side; after the end of the codes something else is said."""
    return Batch(
        text=pad_sequence([one.text for one in spoken], batch_first=True),
        text_lengths=torch.tensor([len(one.text) for one in spoken]),
        codes=pad_sequence([one.codes for one in spoken], batch_first=True, padding_value=77),
        code_lengths=torch.tensor([len(one.codes) for one in spoken]),
        voices=torch.full((len(spoken),), VOICE),
    )


def rows_of(model: Any, nano: Path) -> TalkerRows:
    embedding = ThinkerParts.of(model.thinker).text_model.get_parameter("embed_tokens.weight")
    return TalkerRows(TalkerParts.of(model.talker), embedding, opening(model, nano))


@pytest.fixture(scope="module")
def laid(model: Any, users: Users, batch: Batch, nano: Path) -> Laid:
    with torch.no_grad():
        return rows_of(model, nano).build(users, batch, batch.codes)


@pytest.fixture(scope="module")
def losses(model: Any, nano: Path) -> TalkerLosses:
    corpus = Corpus(coded(), legend(nano), settings(), CPU)
    return losses_of(model, opening(model, nano), corpus, settings())


@pytest.fixture(scope="module")
def answers(losses: TalkerLosses, users: Users, batch: Batch) -> Answers:
    with torch.no_grad():
        return losses.answers(users, batch, batch.codes)


def test_prompts_of_every_kind_were_spoken_to(spoken: Sequence[Spoken], users: Users) -> None:
    assert [bool(media.any()) for media in users.media] == [False, True, True, True]
    assert any(len(one.codes) == MOST_FRAMES for one in spoken), "one should be cut short"
    assert any(len(one.text) < len(one.codes) - 1 for one in spoken), "some frames should have no text left to read"
    assert any(len(one.text) > len(one.codes) for one in spoken), "some text should be left to say"


def test_rows_are_those_that_transformers_feeds_its_talker(spoken: Sequence[Spoken], laid: Laid) -> None:
    for row, one in enumerate(spoken):
        torch.testing.assert_close(laid.rows[row, : len(one.rows)], one.rows, atol=ROWS_TOLERANCE, rtol=1e-5)


@torch.no_grad()
def test_a_text_ends_the_same_however_much_room_there_is_for_it(
    model: Any, users: Users, batch: Batch, nano: Path
) -> None:
    history = batch.codes.repeat(1, 3, 1)
    assert int(batch.text_lengths.max()) == batch.text.shape[1] < history.shape[1]
    roomy = replace(batch, text=pad(batch.text, (0, 40)))
    tight_rows, roomy_rows = (rows_of(model, nano).build(users, some, history).rows for some in (batch, roomy))
    assert tight_rows.equal(roomy_rows)


def test_positions_are_those_that_transformers_gives_them(spoken: Sequence[Spoken], laid: Laid) -> None:
    for row, one in enumerate(spoken):
        assert laid.positions[:, row, : len(one.rows)].equal(one.positions)


def test_the_answer_opens_where_the_user_ends(spoken: Sequence[Spoken], laid: Laid, users: Users) -> None:
    for row, one in enumerate(spoken):
        opened = len(one.rows) - len(one.codes)
        assert int(laid.first_frame[row]) + 1 == opened == int(users.lengths[row]) + OPENING_ROWS


def test_first_codes_are_foretold_as_transformers_foretells_them(spoken: Sequence[Spoken], answers: Answers) -> None:
    for row, one in enumerate(spoken):
        of_frames = one.logits[-len(one.codes) - 1 :]
        torch.testing.assert_close(answers.logits[row, : len(of_frames)], of_frames, atol=LOGITS_TOLERANCE, rtol=0)


@torch.no_grad()
def test_rounding_the_rows_of_media_changes_little(
    losses: TalkerLosses, users: Users, batch: Batch, answers: Answers
) -> None:
    rounded = losses.answers(replace(users, hidden=users.hidden.bfloat16()), batch, batch.codes).logits
    shares, as_rounded = answers.logits.softmax(dim=-1), rounded.softmax(dim=-1)
    assert shares[0].equal(as_rounded[0]), "it was typed"
    assert 0 < (shares - as_rounded).abs().max() < 0.05


@torch.no_grad()
def test_residual_codes_are_foretold_at_once_as_transformers_foretells_them_one_by_one(
    spoken: Sequence[Spoken], answers: Answers, model: Any
) -> None:
    for row, one in enumerate(spoken):
        hidden = answers.hidden[row, : len(one.codes)]
        logits = residual_logits(TalkerParts.of(model.talker), hidden, one.codes[:, :-1])
        torch.testing.assert_close(logits, one.residual_logits, atol=LOGITS_TOLERANCE, rtol=0)
