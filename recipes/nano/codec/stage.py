"""Trains the codec on what nano says, and writes it."""

import torch

from recipes.nano.configuration import Recipe
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.speech.store import read_shard, shards

from .training import new_codec, train


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Does nothing where the codec is there already. Raises RecipeError where there is no speech to learn from."""
    if folder.codec.exists():
        return
    spoken = [utterance for shard in shards(folder.answers) for utterance in read_shard(shard)]
    if not spoken:
        raise RecipeError(f"{folder.answers} has no speech to train the codec on: run the stage `speech` first.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    codec = new_codec(recipe.codec, folder.tokenizer).to(device)
    train(codec, spoken, recipe.codec, folder)
    codec.save(folder.codec)
