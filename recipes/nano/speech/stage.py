"""Synthesises everything that users and nano say."""

from itertools import islice

from recipes.nano.configuration import Recipe
from recipes.nano.domain.conversations import corpus
from recipes.nano.domain.sentences import lines_to_learn
from recipes.nano.folders import WorkFolder

from .parallel import synthesise
from .synthesis import answer, question


def run(recipe: Recipe, folder: WorkFolder) -> None:
    settings = recipe.speech
    asked = [(recording.words, recording.voice) for recording in corpus(recipe.corpus).recordings]
    learnt = list(islice(lines_to_learn(settings.domain_share, settings.longest_phrase), settings.answers))
    synthesise(folder.questions, asked, question, settings)
    synthesise(folder.answers, learnt, answer, settings)
