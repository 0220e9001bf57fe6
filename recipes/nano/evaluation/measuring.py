"""Measures a checkpoint: what it answers and how it speaks, by transformers alone and through Antiphon's API."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from recipes.nano.configuration import Recipe
from recipes.nano.domain.conversations import CLASSES, Conversation, corpus
from recipes.nano.evaluation.answers import class_figures
from recipes.nano.evaluation.by_antiphon import answers_of
from recipes.nano.evaluation.by_transformers import Transformers
from recipes.nano.evaluation.questions import Question, question
from recipes.nano.evaluation.report import Report
from recipes.nano.evaluation.sentences import held_out_sums, lines_to_speak, questions_to_answer_aloud
from recipes.nano.evaluation.settings import EvaluationSettings
from recipes.nano.evaluation.speech import Speech, SpokenQuestion
from recipes.nano.evaluation.tables import answer_table, voice_table
from recipes.nano.evaluation.voice import listener, measure_voice
from recipes.nano.evaluation.voice_figures import VoiceFigures
from recipes.nano.folders import WorkFolder
from recipes.nano.thinker.layout import media_of
from recipes.nano.thinker.media import Audible
from recipes.nano.thinker.recordings import heard_sounds

Asked = TypeVar("Asked")
BY_TRANSFORMERS, BY_ANTIPHON = "answers by transformers", "answers through Antiphon"
CONSOLE = Console(stderr=True, highlight=False)


def measure_run(recipe: Recipe, folder: WorkFolder) -> Report:
    """Raises RecipeError where a recording is missing."""
    asked = questions(_some_of_each_class(recipe), folder.questions)
    asked += held_out_sums(recipe.evaluation.questions_per_class)
    return measure(folder.checkpoint, folder.codec, asked, recipe.evaluation)


def _some_of_each_class(recipe: Recipe) -> list[Conversation]:
    """Those who think aloud first are left out: the Thinker's own stage measures them."""
    held_out, most = corpus(recipe.corpus).held_out, recipe.evaluation.questions_per_class
    classes = ([one for one in held_out if one.of_class == of_class] for of_class in CLASSES if of_class != "thinking")
    return [one for of_class in classes for one in of_class[:most]]


def questions(held_out: Sequence[Conversation], recordings: Path) -> list[Question]:
    """recordings: shards of what users say. Raises RecipeError where one is missing."""
    media = [medium for one in held_out for medium in media_of(one)]
    heard = heard_sounds([medium for medium in media if isinstance(medium, Audible)], recordings)
    return [question(f"{one.of_class}-{number:04}", one, heard) for number, one in enumerate(held_out)]


def measure(checkpoint: Path, codec: Path, asked: Sequence[Question], settings: EvaluationSettings) -> Report:
    """codec: tensors `encoder.*` and `quantiser.*` behind the checkpoint's codes."""
    aloud = questions_to_answer_aloud(settings.spoken_answers, settings.seed)
    some = _evenly(aloud, settings.spoken_by_transformers)
    transformers = Transformers(checkpoint, settings.most_tokens)
    written = {one.name: transformers.write(one) for one in _shown(asked, "written by transformers")}
    spoken = [transformers.speak(one, settings.most_frames) for one in _shown(some, "spoken by transformers")]
    through_antiphon, heard = answers_of(checkpoint, asked, aloud, settings.most_tokens)
    answers = class_figures(
        [*asked, *(one.question for one in some)],
        written | _transcripts(some, spoken),
        {**through_antiphon, **_transcripts(aloud, heard)},
    )
    CONSOLE.print(answer_table(answers))
    both = {BY_TRANSFORMERS: spoken, BY_ANTIPHON: heard}
    return Report(answers, list(_speech(checkpoint, codec, both, settings)))


def _transcripts(asked: Sequence[SpokenQuestion], speeches: Sequence[Speech]) -> dict[str, str]:
    return {one.question.name: speech.line.text for one, speech in zip(asked, speeches, strict=True)}


def _speech(
    checkpoint: Path, codec: Path, answered: Mapping[str, Sequence[Speech]], settings: EvaluationSettings
) -> Iterator[VoiceFigures]:
    ear, lines = listener(settings.processes), lines_to_speak(settings.sentences, settings.seed)
    for figures in measure_voice(checkpoint, lines, ear, codec, settings.most_frames):
        CONSOLE.print(voice_table(figures))
        yield figures
    for of, speeches in answered.items():
        if speeches:
            figures = ear.figures(of, speeches)
            CONSOLE.print(voice_table(figures))
            yield figures


def _evenly(aloud: Sequence[SpokenQuestion], count: int) -> Sequence[SpokenQuestion]:
    return aloud[:: -(-len(aloud) // count)] if count and aloud else ()


def _shown(asked: Sequence[Asked], what: str) -> Iterable[Asked]:
    return track(asked, what, console=CONSOLE)
