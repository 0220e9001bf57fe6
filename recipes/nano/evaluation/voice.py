"""How well a checkpoint's voice is understood: `python -m recipes.nano.evaluation.voice --checkpoint models/nano`.

Texts are given, so no Thinker errs beside it: sentences that no voice was taught, free-running, sampled as the
checkpoint's generation_config.json says. A minute of two processor cores, two more with the ceilings.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console

from recipes.nano.codec.encode import SHIPPED
from recipes.nano.domain.language import dice
from recipes.nano.domain.sentences import answers_of_the_domain
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.evaluation.ceilings import synthesised, through_codec
from recipes.nano.evaluation.reading_aloud import Voice
from recipes.nano.evaluation.sentences import lines_to_speak
from recipes.nano.evaluation.speakers import SpeakerEar
from recipes.nano.evaluation.speech import MOST_FRAMES, VOICES, Line
from recipes.nano.evaluation.tables import voice_table
from recipes.nano.evaluation.voice_figures import Listener, VoiceFigures

# Enough for the ear to know each voice by.
SENTENCES_TO_KNOW_A_VOICE = 12


def measure_voice(
    checkpoint: Path,
    lines: Sequence[Line],
    listener: Listener,
    codec: Path | None = SHIPPED,
    most_frames: int = MOST_FRAMES,
) -> Iterator[VoiceFigures]:
    """Of the voice; then, if the codec is given, of the codec and of the synthesiser that taught both."""
    teacher = synthesised(lines)
    yield listener.figures("voice alone", Voice(checkpoint).speak(lines, most_frames), teacher)
    if codec is not None:
        yield listener.figures("codec alone", through_codec(teacher, codec, checkpoint), teacher)
        yield listener.figures("flite itself", teacher, teacher)


def listener(processes: int | None = None) -> Listener:
    """Who has heard each voice's teacher say other sentences than those that are measured."""
    return Listener(SpeakerEar.taught_by(synthesised(_lines_to_know_voices())), processes or os.cpu_count() or 1)


def _lines_to_know_voices() -> list[Line]:
    taught = [text for text in answers_of_the_domain() if not held_out_of_speech(text)]
    texts = dice("voices to know").sample(taught, SENTENCES_TO_KNOW_A_VOICE)
    return [Line("domain", text, voice, 0) for text in texts for voice in VOICES]


def main(
    checkpoint: Annotated[Path, typer.Option(help="A folder that transformers can load.")],
    sentences: Annotated[int, typer.Option(min=3, help="Different ones; those of the domain in every voice.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same speech.")] = 0,
    ceilings: Annotated[bool, typer.Option(help="Measure the codec alone and flite itself, too.")] = True,
    codec: Annotated[Path, typer.Option(help="encoder.* and quantiser.* behind its codes.")] = SHIPPED,
    processes: Annotated[int | None, typer.Option(min=1, help="That listen; every core if unset.")] = None,
    report: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
) -> None:
    console, figures = Console(), list[VoiceFigures]()
    lines = lines_to_speak(sentences, seed)
    for measured in measure_voice(checkpoint, lines, listener(processes), codec if ceilings else None):
        figures.append(measured)
        console.print(voice_table(measured))
    if report is not None:
        report.write_bytes(TypeAdapter(list[VoiceFigures]).dump_json(figures, indent=1))


if __name__ == "__main__":
    typer.run(main)
