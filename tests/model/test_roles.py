"""Every role reads its own tensors of a checkpoint with the real layout, and together the roles read all of it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from antiphon.model.audio_encoder import AudioEncoder
from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.experts import Experts
from antiphon.model.talker import Talker
from antiphon.model.tensor_layout import tensor_shapes
from antiphon.model.thinker import Thinker
from antiphon.model.vision_encoder import VisionEncoder
from antiphon.model.weights import Checkpoint, load_experts
from tests.reference.real_layout import REAL_TENSOR_COUNT, build_real_layout

LAYERS, EXPERTS = 48, 128
SHARED_BY_THINKER_AND_TALKER = {"thinker.model.embed_tokens.weight"}


class WatchedCheckpoint(Checkpoint):
    """Remembers which tensors were read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.read: set[str] = set()

    def load(
        self, names: Iterable[str], *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> dict[str, torch.Tensor]:
        wanted = list(names)
        self.read.update(wanted)
        return super().load(wanted, dtype=dtype, device=device)


@pytest.fixture(scope="module")
def real_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_real_layout(tmp_path_factory.mktemp("real_layout"))


def elsewhere(_layer: int) -> Experts:
    def call(hidden: torch.Tensor, expert_ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        raise AssertionError("loading a trunk must not call its experts")

    return call


def read_by(directory: Path, load: Callable[[WatchedCheckpoint, OmniConfig], object]) -> set[str]:
    checkpoint = WatchedCheckpoint(directory)
    load(checkpoint, OmniConfig.from_checkpoint(directory))
    return checkpoint.read


ROLES: dict[str, Callable[[WatchedCheckpoint, OmniConfig], object]] = {
    "audio encoder": lambda c, config: AudioEncoder.load(c, config, dtype=torch.float32),
    "vision encoder": lambda c, config: VisionEncoder.load(c, config, dtype=torch.float32),
    "thinker trunk": lambda c, config: Thinker.load(c, config, dtype=torch.float32, experts=elsewhere),
    "thinker experts": lambda c, _: [
        load_experts(c, f"thinker.model.layers.{layer}.mlp.experts.", 0, EXPERTS, dtype=torch.float32)
        for layer in range(LAYERS)
    ],
    "talker": lambda c, config: Talker.load(c, config, dtype=torch.float32),
    "codec": lambda c, config: Code2Wav.load(c, config, dtype=torch.float32),
}


def test_the_roles_together_read_every_tensor_and_share_only_the_token_embedding(real_layout: Path) -> None:
    on_disk = set(Checkpoint(real_layout).names(""))
    assert len(on_disk) == REAL_TENSOR_COUNT
    reads = {role: read_by(real_layout, load) for role, load in ROLES.items()}
    assert set().union(*reads.values()) == on_disk
    for role, names in reads.items():
        for other, others in reads.items():
            assert role == other or names & others <= SHARED_BY_THINKER_AND_TALKER, f"{role} and {other} overlap"


def test_the_configuration_alone_tells_every_name(real_layout: Path) -> None:
    on_disk = Checkpoint(real_layout).names("")
    assert sorted(tensor_shapes(OmniConfig.from_checkpoint(real_layout))) == on_disk


def test_a_range_of_experts_is_read_without_its_neighbours(real_layout: Path) -> None:
    checkpoint = WatchedCheckpoint(real_layout)
    place = "thinker.model.layers.47.mlp.experts."
    gate_up, down = load_experts(checkpoint, place, 32, 48, dtype=torch.float32)
    assert gate_up.shape == (16, 8, 8)
    assert down.shape == (16, 8, 4)
    assert {int(name.removeprefix(place).split(".")[0]) for name in checkpoint.read} == set(range(32, 48))
