"""A checkpoint of the real size without weights: what is published of the real one is true of it."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from antiphon.model.audio_encoder import AudioEncoder
from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.talker import Talker
from antiphon.model.tensor_layout import tensor_shapes
from antiphon.model.vision_encoder import VisionEncoder
from antiphon.model.weights import Checkpoint
from antiphon.prompt.conversation import Audio, Conversation, Message, Text
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import PromptBuilder
from services.command_line.bench.plan import ModelSize
from services.command_line.bench.random_checkpoint import write_random_checkpoint
from services.gateway.config import GatewaySettings
from services.gateway.served_model import read_served_model

# Of the published checkpoint of Qwen3-Omni-30B-A3B-Instruct.
PUBLISHED_TENSORS, PUBLISHED_NUMBERS = 28_010, 35_259_818_545


@pytest.fixture(scope="module")
def real(nano: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as parent:
        yield write_random_checkpoint(Path(parent), ModelSize.REAL, 0, nano)


def test_it_has_the_tensors_and_numbers_of_the_published_checkpoint(real: Path) -> None:
    shapes = tensor_shapes(OmniConfig.from_checkpoint(real))
    assert len(shapes) == PUBLISHED_TENSORS
    assert sum(math.prod(shape) for shape in shapes.values()) == PUBLISHED_NUMBERS


@pytest.mark.parametrize("role", [AudioEncoder, VisionEncoder, Code2Wav])
def test_a_role_of_the_real_size_finds_its_tensors(real: Path, role: type[AudioEncoder]) -> None:
    role.load(Checkpoint(real), OmniConfig.from_checkpoint(real), dtype=torch.bfloat16, device="meta")


@pytest.mark.slow
def test_a_talker_of_the_real_size_finds_its_tensors(real: Path) -> None:
    Talker.load(Checkpoint(real), OmniConfig.from_checkpoint(real), dtype=torch.bfloat16, device="meta")


def test_questions_are_nanos_words_between_the_real_control_tokens(real: Path, nano: Path) -> None:
    question = Conversation((Message("user", (Audio(), Text("What is that?"))),))
    layouts = [MediaLayout(0, "audio", 3)]
    theirs, ours = (PromptBuilder(each).build(question, layouts).thinker.token_ids for each in (real, nano))
    assert theirs[:5] == (151_644, ours[1], ours[2], 151_669, 151_675)
    # All below nano's control tokens is the same.
    assert [at for at in theirs if at < 1450] == [at for at in ours if at < 1450]


def test_every_id_that_may_be_answered_has_text_but_the_control_tokens(real: Path) -> None:
    texts = PromptBuilder(real).token_bytes
    assert all(texts[at] for at in (5, 1449, 1450, 100_000, 151_642, 151_666))
    assert not any(texts[at] for at in (151_643, 151_645, 151_675))


def test_the_gateway_offers_its_voices(real: Path) -> None:
    served = read_served_model(GatewaySettings(checkpoint=real))
    assert (served.voices, served.context_tokens) == (("aiden", "chelsie", "ethan"), 65_536)


def test_nanos_size_is_nano_without_weights(nano: Path, tmp_path: Path) -> None:
    random = write_random_checkpoint(tmp_path, ModelSize.NANO, 7, nano)
    assert Checkpoint(random).names("") == Checkpoint(nano).names("")
    assert (random / "config.json").read_text() == (nano / "config.json").read_text()
    assert not list(random.glob("*.safetensors"))
