"""The code predictor equals transformers', frame by frame and many frames at once."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.code_predictor import CodePredictor
from antiphon.model.config import OmniConfig
from antiphon.model.talker import Talker
from antiphon.model.weights import Checkpoint


@pytest.fixture(scope="module", params=["tiny", "nano"])
def loaded(request, tiny_checkpoint, tiny_reference, nano, nano_reference):
    checkpoint, reference = (tiny_checkpoint, tiny_reference) if request.param == "tiny" else (nano, nano_reference)
    talker = Talker.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)
    return talker.code_predictor, reference.model.talker


def _greedy(logits: Tensor, _group: int) -> Tensor:
    return logits.argmax(-1)


def _frames(talker, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    codebook = talker.code_predictor.config.vocab_size
    hidden = torch.randn(count, talker.config.text_config.hidden_size, generator=generator)
    return hidden, torch.randint(0, codebook, (count,), generator=generator)


@torch.no_grad()
def _reference_codes(talker, hidden: Tensor, first_code: Tensor) -> list[int]:
    rows = torch.stack((hidden, talker.model.codec_embedding(first_code)))[None]
    groups = talker.config.num_code_groups
    codes = talker.code_predictor.generate(inputs_embeds=rows, max_new_tokens=groups - 1, do_sample=False)
    return [int(first_code), *codes[0].tolist()]


# Growing and shrinking counts: the buffers are used again and must not remember.
@pytest.mark.parametrize("count", [1, 7, 3, 20, 2])
@torch.inference_mode()
def test_codes_equal_the_reference(loaded, count):
    predictor, talker = loaded
    hidden, first = _frames(talker, count)
    codes, sums = predictor.predict(hidden, first, _greedy)
    assert codes.tolist() == [_reference_codes(talker, *frame) for frame in zip(hidden, first, strict=True)]
    tables = [talker.model.codec_embedding, *talker.code_predictor.model.codec_embedding]
    expected = torch.stack([table(codes[:, group]) for group, table in enumerate(tables)], 1).sum(1)
    torch.testing.assert_close(sums, expected, rtol=0, atol=0)
    assert torch.equal(predictor.embedding_sums(codes), sums)


def test_each_group_is_chosen_from_its_own_logits(loaded):
    predictor, talker = loaded
    hidden, first = _frames(talker, 2)
    groups: list[int] = []

    def worst(logits: Tensor, group: int) -> Tensor:
        groups.append(group)
        assert logits.dtype == torch.float32
        return logits.argmin(-1)

    codes, _ = predictor.predict(hidden, first, worst)
    assert groups == list(range(1, 16))
    assert codes.shape == (2, 16)
    assert codes.tolist() != predictor.predict(hidden, first, _greedy)[0].tolist()


def test_another_width_than_the_talkers_is_refused(tiny_checkpoint):
    talker = OmniConfig.from_checkpoint(tiny_checkpoint).require_talker()
    wrong = replace(talker, code_predictor=replace(talker.code_predictor, width=32))
    with pytest.raises(CheckpointError, match="expected the Talker's width 48"):
        CodePredictor.load(Checkpoint(tiny_checkpoint), wrong, torch.empty(1, 48), dtype=torch.float32)
