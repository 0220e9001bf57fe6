"""A checkpoint folder as Hugging Face lays it out, from the parts that the stages left."""

import os
import shutil
from pathlib import Path

from transformers import GenerationConfig, Qwen3OmniMoeForConditionalGeneration

from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import build_model, config_for
from recipes.nano.model.parts import load_part
from recipes.nano.tokenizer.special_tokens import SpecialTokens

from .settings import DTYPES, AssembleSettings

WEIGHTS = "model.safetensors"


def is_up_to_date(folder: WorkFolder) -> bool:
    """Whether the checkpoint was written after everything that it is put together from."""
    weights = folder.checkpoint / WEIGHTS
    sources = (folder.tokenizer, folder.thinker, folder.talker, folder.codec)
    return weights.exists() and all(_written(weights) >= _written(source) for source in sources if source.exists())


def write_checkpoint(folder: WorkFolder, settings: AssembleSettings) -> None:
    """Replaces the one that is there. Raises RecipeError when a part is missing or of another shape."""
    unfinished = folder.root / f".checkpoint.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(folder.tokenizer, unfinished)
    model = assembled_model(folder).to(DTYPES[settings.dtype])
    model.generation_config = generation_config(SpecialTokens.from_folder(folder.tokenizer), settings)
    model.save_pretrained(unfinished)
    (unfinished / WEIGHTS).chmod(0o644)  # safetensors lets nobody else read what it writes
    shutil.rmtree(folder.checkpoint, ignore_errors=True)
    unfinished.rename(folder.checkpoint)


def assembled_model(folder: WorkFolder) -> Qwen3OmniMoeForConditionalGeneration:
    """Float32, ready to answer; what only training needs (the codec's encoder, the recogniser's head) is left out."""
    model = build_model(config_for(folder.tokenizer), seed=0).eval()
    load_part(folder.thinker, model, "thinker.")
    load_part(folder.talker, model, "talker.")
    load_part(folder.codec, model, "code2wav.")
    return model


def generation_config(tokens: SpecialTokens, settings: AssembleSettings) -> GenerationConfig:
    """Of the whole model. The talker_* keys are arguments of the model's own `generate`; Antiphon takes them as its
    defaults, with transformers one passes them on."""
    return GenerationConfig(
        eos_token_id=tokens.im_end,
        pad_token_id=tokens.padding,
        talker_do_sample=settings.talker_temperature > 0,
        talker_temperature=settings.talker_temperature,
        talker_top_k=settings.talker_top_k,
        talker_top_p=settings.talker_top_p,
        talker_repetition_penalty=settings.talker_repetition_penalty,
    )


def _written(path: Path) -> float:
    return path.stat().st_mtime
