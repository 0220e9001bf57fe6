"""Learns the tokenizer of a run and writes it with its processor."""

import os
import shutil
from collections.abc import Iterator
from itertools import islice

from recipes.nano.configuration import Recipe
from recipes.nano.domain.conversations import corpus
from recipes.nano.domain.sentences import lines_to_learn
from recipes.nano.folders import WorkFolder

from .processor import write_processor
from .texts import texts_of
from .training import train_tokenizer


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Leaves a folder that is there as it is."""
    if folder.tokenizer.exists():
        return
    texts = texts_of(corpus(recipe.corpus).training, _said(recipe))
    tokenizer = train_tokenizer(texts, recipe.tokenizer.merged_tokens)
    unfinished = folder.root / f".tokenizer.{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    tokenizer.save_pretrained(unfinished)
    write_processor(unfinished)
    unfinished.rename(folder.tokenizer)


def _said(recipe: Recipe) -> Iterator[str]:
    """What the speech stage lets nano say."""
    lines = lines_to_learn(recipe.speech.domain_share, recipe.speech.longest_phrase)
    return (text for text, _ in islice(lines, recipe.speech.answers))
