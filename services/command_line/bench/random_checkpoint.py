"""A checkpoint directory without weights: nano's template and words, a configuration of its or the real size, a seed.

It says nothing sensible and takes as long as the model whose size it has.
"""

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from antiphon.model.random_tensors import RANDOM_WEIGHTS
from services.command_line.bench.plan import ModelSize

_COPIED: Final = ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json", "processor_config.json")
_ROLE_IDS: Final = ("system_token_id", "user_token_id", "assistant_token_id")
# As the real tokenizer numbers them.
_CONTROL_IDS: Final[Mapping[str, int]] = {
    "<|endoftext|>": 151_643,
    "<|im_start|>": 151_644,
    "<|im_end|>": 151_645,
    "<|vision_start|>": 151_652,
    "<|vision_end|>": 151_653,
    "<|vision_pad|>": 151_654,
    "<|image_pad|>": 151_655,
    "<|video_pad|>": 151_656,
    "<think>": 151_667,
    "</think>": 151_668,
    "<|audio_start|>": 151_669,
    "<|audio_end|>": 151_670,
    "<tts_pad>": 151_671,
    "<tts_text_bos>": 151_672,
    "<tts_text_eod>": 151_673,
    "<tts_text_bos_single>": 151_674,
    "<|audio_pad|>": 151_675,
}
# Pixels of an image and of a film's frame, as the real processor bounds them.
_IMAGE_SIZE: Final = {"shortest_edge": 3_136, "longest_edge": 12_845_056}
_VIDEO_SIZE: Final = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}
_REAL_GENERATION: Final = {
    "eos_token_id": _CONTROL_IDS["<|im_end|>"],
    "pad_token_id": _CONTROL_IDS["<|endoftext|>"],
    "talker_do_sample": True,
    "talker_temperature": 0.9,
    "talker_top_k": 50,
    "talker_top_p": 1.0,
    "talker_repetition_penalty": 1.05,
}


def write_random_checkpoint(parent: Path, size: ModelSize, seed: int, nano: Path) -> Path:
    """Makes a directory in `parent` that every service reads as a checkpoint; `nano` lends its words."""
    directory = parent / f"random-{size.value}"
    directory.mkdir()
    for name in (*_COPIED, "config.json", "generation_config.json"):
        shutil.copy(nano / name, directory)
    if size is ModelSize.REAL:
        _enlarge(directory)
    _write(directory / RANDOM_WEIGHTS, {"seed": seed})
    return directory


def _enlarge(directory: Path) -> None:
    """The real model's shapes and ids. The roles keep nano's ids, since they are words and words are nano's."""
    nano = _read(directory / "config.json")
    config = json.loads((files(__package__) / "real_size.json").read_text())
    config |= {key: nano[key] for key in _ROLE_IDS}
    config["thinker_config"]["user_token_id"] = nano["user_token_id"]
    _write(directory / "config.json", config)
    _write(directory / "generation_config.json", _REAL_GENERATION)
    processor = _read(directory / "processor_config.json")
    processor["image_processor"]["size"], processor["video_processor"]["size"] = _IMAGE_SIZE, _VIDEO_SIZE
    _write(directory / "processor_config.json", processor)
    tokenizer = _read(directory / "tokenizer.json")
    _number_as_real(tokenizer)
    _write(directory / "tokenizer.json", tokenizer)


def _number_as_real(tokenizer: dict[str, Any]) -> None:
    """nano's words keep their ids; every id after them gets a word that no text becomes, so that answers have text."""
    for token in tokenizer["added_tokens"]:
        token["id"] = _CONTROL_IDS[token["content"]]
    vocabulary = {word: at for word, at in tokenizer["model"]["vocab"].items() if word not in _CONTROL_IDS}
    taken = {*vocabulary.values(), *_CONTROL_IDS.values()}
    unused = (at for at in range(max(taken)) if at not in taken)
    tokenizer["model"]["vocab"] = vocabulary | dict(_CONTROL_IDS) | {f"Ġw{at}": at for at in unused}


def _read(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file.read_text())
    return read


def _write(file: Path, values: Mapping[str, object]) -> None:
    file.write_text(json.dumps(values))
