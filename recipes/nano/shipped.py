"""Takes tokenizer, codec and Thinker of the shipped checkpoint, for those who train its Talker only."""

import shutil
from pathlib import Path

from safetensors.torch import load_file
from transformers import Qwen3OmniMoeForConditionalGeneration

from recipes.nano.codec.encode import SHIPPED as SHIPPED_ENCODER
from recipes.nano.configuration import Recipe
from recipes.nano.folders import WorkFolder
from recipes.nano.model.parts import save_part

NANO = Path(__file__).parents[2] / "models" / "nano"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja")


def run(_: Recipe, folder: WorkFolder) -> None:
    """What another stage has written already stays."""
    if not folder.tokenizer.exists():
        _copy_tokenizer(folder.tokenizer)
    if folder.thinker.exists() and folder.codec.exists():
        return
    model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(NANO, dtype="float32")
    if not folder.thinker.exists():
        save_part(folder.thinker, model, "thinker.")
    if not folder.codec.exists():
        save_part(folder.codec, model, "code2wav.", load_file(SHIPPED_ENCODER))


def _copy_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copy(NANO / name, folder / name)
