"""The Talker equals transformers': its prompt rows, its hidden rows and every code of greedy speech."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import OmniConfig
from antiphon.model.talker import Talker
from antiphon.model.weights import Checkpoint
from tests.end_to_end.conversations import film, picture, sound, user
from tests.model.packed_steps import PackedSequence, PackedSteps
from tests.model.recorded_prefill import RecordedTurn, record

CONVERSATIONS = {
    "text": [user("say red")],
    "all": [user(sound(1.3), picture(seed=2), film(), "describe what you see")],
}
ASSISTANT_ROWS = 9
REPETITION_PENALTY = 1.05


@pytest.fixture(scope="module", params=["tiny", "nano"])
def loaded(request, tiny_checkpoint, tiny_reference, nano, nano_reference):
    checkpoint, reference = (tiny_checkpoint, tiny_reference) if request.param == "tiny" else (nano, nano_reference)
    config = OmniConfig.from_checkpoint(checkpoint)
    turns = [record(reference, messages, max_frames=12) for messages in CONVERSATIONS.values()]
    return config, Talker.load(Checkpoint(checkpoint), config, dtype=torch.float32), reference, turns


@dataclass
class Speech:
    turn: RecordedTurn
    sequence: PackedSequence = field(default_factory=PackedSequence)
    first_codes: list[int] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    next_row: Tensor | None = None

    @property
    def codes(self) -> Tensor:
        assert self.turn.turn.codes is not None
        return self.turn.turn.codes


def _prompt_rows(talker: Talker, config: OmniConfig, turn: RecordedTurn) -> Tensor:
    """The whole prompt, built from ids and accepted rows only, as the service builds it."""
    user_ids, prefix = turn.token_ids[:-3], turn.token_ids[-3:].tolist()
    thinker = config.thinker
    media = torch.isin(user_ids, torch.tensor([thinker.audio_token_id, thinker.image_token_id, thinker.video_token_id]))
    rows = talker.text_rows(user_ids)
    rows[media] = talker.hidden_rows(turn.accepted[: len(user_ids)][media])
    speaker = config.require_talker().speaker_ids["ethan"]
    return torch.cat((rows, talker.assistant_rows(prefix, speaker), talker.first_text_row(turn.turn.text_ids[0])))


def test_prompt_rows_equal_what_generate_feeds_its_talker(loaded):
    config, talker, _, turns = loaded
    for turn in turns:
        with torch.inference_mode():
            rows = _prompt_rows(talker, config, turn)
        torch.testing.assert_close(rows, turn.talker.rows, rtol=1e-5, atol=2e-5)
        assert talker.assistant_rows(turn.token_ids[-3:].tolist(), 5).shape[0] == ASSISTANT_ROWS - 1


def test_text_rows_and_silence_equal_what_steers_the_speech(loaded):
    _, talker, _, turns = loaded
    for turn in turns:
        with torch.inference_mode():
            spoken = talker.text_rows(torch.tensor(turn.turn.text_ids[1:-1], dtype=torch.int64))
        expected = torch.cat((spoken, talker.tts_eos_row))
        torch.testing.assert_close(turn.trailing_text, expected, rtol=1e-5, atol=1e-5)


def test_packed_speech_equals_generate_code_for_code(loaded):
    config, talker, _, turns = loaded
    speeches, steps = [Speech(turn) for turn in turns], PackedSteps(config.require_talker().text)
    with torch.inference_mode():
        for speech in speeches:  # the prompts in two chunks, the second of all in one step
            _prefill(talker, steps, [(speech, len(speech.turn.talker.rows) - 6)])
        _speak(talker, speeches, _prefill(talker, steps, [(speech, 6) for speech in speeches]))
        while live := [speech for speech in speeches if len(speech.frames) < len(speech.codes)]:
            _speak(talker, live, _decode(talker, steps, live))
    for speech in speeches:
        assert torch.stack(speech.frames).tolist() == speech.codes.tolist()


def _prefill(talker: Talker, steps: PackedSteps, shares: list[tuple[Speech, int]]) -> Tensor:
    spans = [slice(speech.sequence.computed, speech.sequence.computed + count) for speech, count in shares]
    rows = torch.cat([speech.turn.talker.rows[span] for (speech, _), span in zip(shares, spans, strict=True)])
    positions = [speech.turn.talker.positions[:, span] for (speech, _), span in zip(shares, spans, strict=True)]
    batch = steps.batch([(speech.sequence, count) for speech, count in shares])
    return talker.forward(rows, torch.cat(positions, 1), batch, steps.keys_values)[batch.last_places]


def _decode(talker: Talker, steps: PackedSteps, live: list[Speech]) -> Tensor:
    rows, positions = [], []
    for speech in live:
        frame, trailing = len(speech.frames) - 1, speech.turn.trailing_text
        assert speech.next_row is not None
        rows.append(speech.next_row + (trailing[frame] if frame < len(trailing) else talker.tts_pad_row[0]))
        positions.append(speech.turn.talker.positions[:, -1].max() + 1 + frame)
    batch = steps.batch([(speech.sequence, 1) for speech in live])
    return talker.forward(torch.stack(rows), torch.stack(positions).expand(3, -1), batch, steps.keys_values)


def _speak(talker: Talker, live: list[Speech], hidden: Tensor) -> None:
    """One frame of each: the first code greedily, then all residual codes at once."""
    logits = talker.code_logits(hidden)
    for row, speech in zip(logits, live, strict=True):
        seen = torch.tensor(sorted(set(speech.first_codes)), dtype=torch.int64)
        row[seen] = torch.where(row[seen] < 0, row[seen] * REPETITION_PENALTY, row[seen] / REPETITION_PENALTY)
        row[talker.suppressed_code_ids] = -torch.inf
        speech.first_codes.append(int(row.argmax()))
    first = torch.tensor([speech.first_codes[-1] for speech in live])
    codes, sums = talker.code_predictor.predict(hidden, first, lambda logits, _group: logits.argmax(-1))
    for speech, frame, total in zip(live, codes, sums, strict=True):
        speech.frames.append(frame)
        speech.next_row = total


def test_the_end_of_speech_is_the_only_control_code_that_may_be_chosen(loaded):
    config, talker, _, _ = loaded
    text, end = config.require_talker().text, config.require_talker().codec_eos_id
    allowed = set(range(text.vocabulary)) - set(talker.suppressed_code_ids.tolist())
    assert allowed == set(range(text.vocabulary - 1024)) | {end}


def test_a_talker_of_another_width_is_refused(tiny_checkpoint):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    wrong = replace(config, talker=replace(config.require_talker(), thinker_width=99))
    with pytest.raises(CheckpointError, match="width 99, but the Thinker's have 64"):
        Talker.load(Checkpoint(tiny_checkpoint), wrong, dtype=torch.float32)


def test_a_checkpoint_without_speech_is_refused(tiny_checkpoint):
    config = replace(OmniConfig.from_checkpoint(tiny_checkpoint), talker=None)
    with pytest.raises(CheckpointError, match="has no Talker"):
        Talker.load(Checkpoint(tiny_checkpoint), config, dtype=torch.float32)
