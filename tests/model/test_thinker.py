"""The Thinker equals transformers': hidden rows, accepted rows and greedy ids, in packed steps that mix everything."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import OmniConfig
from antiphon.model.thinker import DeepstackRows, Thinker
from antiphon.model.weights import Checkpoint
from tests.end_to_end.conversations import assistant, film, picture, sound, system, user
from tests.model.packed_steps import PackedSequence, PackedSteps
from tests.model.recorded_prefill import RecordedTurn, record

CONVERSATIONS = {
    "text": [user("say red")],
    "sound": [system("Be brief."), user(sound(1.1), "what do you hear")],
    "picture": [user(picture(), "see")],
    "all": [user(sound(2.3), picture(seed=2), film(), "describe"), assistant("yes"), user("think", picture(seed=3))],
}
# Rows of a prefill chunk, in turn; decode steps of the others fall between them.
CHUNKS = (5, 16, 1, 40)


@dataclass
class Request:
    recorded: RecordedTurn
    joins_at: int
    sequence: PackedSequence = field(default_factory=PackedSequence)
    ids: list[int] = field(default_factory=list)
    accepted: list[Tensor] = field(default_factory=list)

    @property
    def prompt_rows(self) -> int:
        return len(self.recorded.token_ids)

    @property
    def is_done(self) -> bool:
        return len(self.ids) == len(self.recorded.turn.text_ids)

    def next_count(self, step: int) -> int:
        left = self.prompt_rows - self.sequence.computed
        return min(left, CHUNKS[step % len(CHUNKS)]) if left > 0 else 1


def _load(checkpoint, dtype: torch.dtype = torch.float32) -> Thinker:
    return Thinker.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=dtype)


def _inputs(thinker: Thinker, request: Request, first: int, count: int) -> tuple[Tensor, Tensor]:
    if first < request.prompt_rows:
        prompt = request.recorded.thinker
        return prompt.rows[first : first + count], prompt.positions[:, first : first + count]
    position = request.recorded.thinker.positions[:, -1].max() + 1 + len(request.ids) - 1
    return thinker.embed(torch.tensor(request.ids[-1:])), position.expand(3, 1)


def _deepstack(requests: list[Request], counts: list[int]) -> DeepstackRows | None:
    place, parts = 0, []
    for request, count in zip(requests, counts, strict=True):
        first = request.sequence.computed
        parts.append(request.recorded.thinker.deepstack_of(first, first + count, place))
        place += count
    present = [part for part in parts if part is not None]
    if not present:
        return None
    layers = zip(*(part.additions for part in present), strict=True)
    return DeepstackRows(torch.cat([part.places for part in present]), tuple(torch.cat(layer) for layer in layers))


def _step(thinker: Thinker, steps: PackedSteps, live: list[Request], number: int) -> None:
    counts = [request.next_count(number) for request in live]
    inputs = [_inputs(thinker, r, r.sequence.computed, count) for r, count in zip(live, counts, strict=True)]
    deepstack = _deepstack(live, counts)
    batch = steps.batch([(request.sequence, count) for request, count in zip(live, counts, strict=True)])
    rows, positions = torch.cat([rows for rows, _ in inputs]), torch.cat([positions for _, positions in inputs], 1)
    out = thinker.forward(rows, positions, batch, steps.keys_values, deepstack)
    ids = thinker.logits(out.final[batch.last_places]).argmax(-1).tolist()
    assert out.accepted is not None
    for request, accepted, token_id in zip(live, out.accepted.split(counts), ids, strict=True):
        request.accepted.append(accepted)
        if request.sequence.computed >= request.prompt_rows:
            request.ids.append(token_id)


def _run(thinker: Thinker, steps: PackedSteps, requests: list[Request]) -> None:
    number = 0
    with torch.inference_mode():
        while live := [r for r in requests if r.joins_at <= number and not r.is_done]:
            _step(thinker, steps, live, number)
            number += 1


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_mixed_requests_that_join_and_leave_equal_generate(name, tiny_checkpoint, tiny_reference, nano, nano_reference):
    checkpoint, reference = (tiny_checkpoint, tiny_reference) if name == "tiny" else (nano, nano_reference)
    config = OmniConfig.from_checkpoint(checkpoint)
    recorded = [record(reference, messages, max_frames=2) for messages in CONVERSATIONS.values()]
    requests = [Request(each, joins_at=2 * index) for index, each in enumerate(recorded)]
    _run(_load(checkpoint), PackedSteps(config.thinker.text), requests)
    for request in requests:
        assert request.ids == request.recorded.turn.text_ids
        accepted = torch.cat(request.accepted)[: request.prompt_rows]
        torch.testing.assert_close(accepted, request.recorded.accepted, rtol=1e-5, atol=2e-5)


def test_hidden_rows_and_logits_of_chunks_equal_the_whole(tiny_checkpoint, tiny_reference):
    """Random rows, fractional positions and deepstack additions that cross the chunks' borders."""
    generator = torch.Generator().manual_seed(0)
    config = OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text
    ids, positions = torch.randint(0, 300, (57,), generator=generator), torch.rand(3, 57, generator=generator) * 50
    visual = torch.zeros(1, 57, dtype=torch.bool)
    visual[0, 5:33] = True
    additions = [torch.randn(28, config.width, generator=generator) for _ in range(3)]
    thinker, steps, sequence, finals = _load(tiny_checkpoint), PackedSteps(config), PackedSequence(), []
    with torch.inference_mode():
        for count in (8, 22, 26, 1):
            first = sequence.computed
            inside = [row for row in range(first, first + count) if visual[0, row]]
            chosen = tuple(rows[[row - 5 for row in inside]] for rows in additions)
            deepstack = DeepstackRows(torch.tensor([row - first for row in inside]), chosen) if inside else None
            batch, part = steps.batch([(sequence, count)]), slice(first, first + count)
            rows = thinker.embed(ids[part])
            finals.append(thinker.forward(rows, positions[:, part], batch, steps.keys_values, deepstack).final)
        logits = thinker.logits(torch.cat(finals))
        model = tiny_reference.model.thinker
        expected = model.model.language_model(
            inputs_embeds=model.model.language_model.embed_tokens(ids[None]),
            position_ids=positions[:, None],
            use_cache=False,
            visual_pos_masks=visual,
            deepstack_visual_embeds=additions,
        ).last_hidden_state
        torch.testing.assert_close(torch.cat(finals), expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits, model.lm_head(expected)[0], rtol=1e-5, atol=1e-5)
    assert logits.dtype == torch.float32


def test_bfloat16_runs_by_the_same_code(tiny_checkpoint):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    ids, positions = torch.arange(40), torch.arange(40.0).expand(3, -1)
    finals = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            thinker, steps = _load(tiny_checkpoint, dtype), PackedSteps(config.thinker.text, dtype)
            sequence = PackedSequence()
            out = thinker.forward(thinker.embed(ids), positions, steps.batch([(sequence, 40)]), steps.keys_values)
            assert out.final.dtype == dtype
            finals.append(out.final.float())
    cosine = torch.nn.functional.cosine_similarity(*finals)
    assert cosine.median() > 0.999


def test_a_layer_that_the_talker_cannot_accept_is_refused(tiny_checkpoint):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    wrong = replace(config, talker=replace(config.require_talker(), accept_hidden_layer=9))
    with pytest.raises(CheckpointError, match="accept hidden layer 9; expected one below the Thinker's 5"):
        Thinker.load(Checkpoint(tiny_checkpoint), wrong, dtype=torch.float32)
