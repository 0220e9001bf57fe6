"""A directory with random weights is a checkpoint like any other: complete, seeded, and sound to compute with."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from antiphon.errors import CheckpointError
from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.random_tensors import RANDOM_WEIGHTS
from antiphon.model.talker import Talker
from antiphon.model.tensor_layout import tensor_shapes
from antiphon.model.thinker import Thinker
from antiphon.model.weights import Checkpoint

HEADS = ("thinker.lm_head.weight", "talker.codec_head.weight")
NAMES = ("thinker.lm_head.weight", "talker.model.layers.1.mlp.experts.3.up_proj.weight", "code2wav.decoder.5.alpha")


def random_copy(source: Path, directory: Path, seed: int = 0) -> Path:
    """The configuration of `source` without its weights."""
    directory.mkdir()
    shutil.copy(source / "config.json", directory)
    (directory / RANDOM_WEIGHTS).write_text(json.dumps({"seed": seed}))
    return directory


def shapes_on_disk(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def test_the_configuration_tells_every_tensor_of_real_files_and_its_shape(nano: Path, tiny_checkpoint: Path) -> None:
    for checkpoint in (nano, tiny_checkpoint):
        assert tensor_shapes(OmniConfig.from_checkpoint(checkpoint)) == shapes_on_disk(checkpoint)


def test_the_layout_of_a_silent_checkpoint_has_the_thinker_only(nano: Path, tmp_path: Path) -> None:
    silent = random_copy(nano, tmp_path / "silent")
    values = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps(values | {"enable_audio_output": False}))
    names = Checkpoint(silent).names("")
    assert names == [name for name in sorted(shapes_on_disk(nano)) if name.startswith("thinker.")]


def test_a_tensor_depends_on_the_seed_and_its_name_only(nano: Path, tmp_path: Path) -> None:
    first, same = (Checkpoint(random_copy(nano, tmp_path / name)) for name in ("first", "same"))
    other = Checkpoint(random_copy(nano, tmp_path / "other", seed=1))
    together = first.load(NAMES, dtype=torch.float32)
    for name in reversed(NAMES):
        assert torch.equal(same.load([name], dtype=torch.float32)[name], together[name])
        assert not torch.equal(other.load([name], dtype=torch.float32)[name], together[name])
    gate = NAMES[1].replace("up_proj", "gate_proj")
    assert not torch.equal(first.load([gate], dtype=torch.float32)[gate], together[NAMES[1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_come_in_the_type_that_is_asked_for(nano: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    loaded = Checkpoint(random_copy(nano, tmp_path / "random")).load(NAMES, dtype=dtype)
    assert {tensor.dtype for tensor in loaded.values()} == {dtype}
    # Rows of a matrix keep the size of what goes through them.
    assert loaded[NAMES[0]].float().norm(dim=1).median().item() == pytest.approx(1.2, rel=0.05)


def test_what_the_configuration_does_not_imply_is_missing(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lacks thinker\\.nothing"):
        Checkpoint(random_copy(nano, tmp_path / "random")).load(["thinker.nothing"], dtype=torch.float32)


@pytest.mark.parametrize("text", ["", "{}", '{"seed": "0"}', '{"seed": true}', "[]"])
def test_a_seed_that_is_none_is_refused(nano: Path, tmp_path: Path, text: str) -> None:
    directory = random_copy(nano, tmp_path / "random")
    (directory / RANDOM_WEIGHTS).write_text(text)
    with pytest.raises(CheckpointError, match="seed"):
        Checkpoint(directory)


def test_no_head_chooses_its_end_by_chance(nano: Path, tmp_path: Path) -> None:
    config = OmniConfig.from_checkpoint(nano)
    heads = Checkpoint(random_copy(nano, tmp_path / "random")).load(HEADS, dtype=torch.float32)
    for name, end in zip(HEADS, (config.im_end_id, config.require_talker().codec_eos_id), strict=True):
        assert not heads[name][end].any()
        assert heads[name][end - 1].any()


@pytest.mark.gpu
def test_on_a_gpu_two_readers_draw_the_same_and_no_second_copy_is_made(nano: Path, tmp_path: Path) -> None:
    first, same = (Checkpoint(random_copy(nano, tmp_path / name)) for name in ("first", "same"))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    drawn = first.load(NAMES, dtype=torch.bfloat16, device="cuda")
    kept = torch.cuda.memory_allocated() - before
    assert torch.cuda.max_memory_allocated() - before == kept
    again = same.load(reversed(NAMES), dtype=torch.bfloat16, device="cuda")
    assert all(tensor.is_cuda and torch.equal(tensor, again[name]) for name, tensor in drawn.items())


def test_random_roles_compute_finite_numbers(nano: Path, tmp_path: Path) -> None:
    directory = random_copy(nano, tmp_path / "random")
    checkpoint, config = Checkpoint(directory), OmniConfig.from_checkpoint(directory)
    thinker = Thinker.load(checkpoint, config, dtype=torch.float32)
    talker = Talker.load(checkpoint, config, dtype=torch.float32)
    ids = torch.arange(8)
    assert thinker.logits(thinker.embed(ids)).isfinite().all()
    assert talker.text_rows(ids).isfinite().all()
    frames = torch.randint(0, 256, (12, 16), generator=torch.Generator().manual_seed(0))
    wave = Code2Wav.load(checkpoint, config, dtype=torch.float32).decode(frames)
    assert wave.isfinite().all()
    assert wave.std() > 0.01
