"""How well a checkpoint's voice is understood: `python -m recipes.nano.evaluation.voice --checkpoint models/nano`.

Texts are given, so no Thinker errs beside it: sentences that no voice was taught, free-running, sampled as the
checkpoint's generation_config.json says. A minute of two processor cores, two more with the ceilings.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recipes.nano.codec.encode import SHIPPED
from recipes.nano.domain.language import dice
from recipes.nano.domain.sentences import answers_of_the_domain
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.evaluation.ceilings import synthesised, through_codec
from recipes.nano.evaluation.held_out import VOICES, lines_to_speak
from recipes.nano.evaluation.reading_aloud import Voice
from recipes.nano.evaluation.speakers import SpeakerEar
from recipes.nano.evaluation.speech import Line
from recipes.nano.evaluation.tables import show_voices
from recipes.nano.evaluation.voice_figures import Listener, VoiceFigures

# Enough for the ear to know each voice by.
SENTENCES_TO_KNOW_A_VOICE = 12


def measure_voice(
    checkpoint: Path, lines: Sequence[Line], *, codec: Path | None, processes: int
) -> Iterator[VoiceFigures]:
    """Of the voice; then, if the codec is given, of the codec and of the synthesiser that taught both."""
    teacher = synthesised(lines)
    listener = Listener(SpeakerEar.taught_by(synthesised(_lines_to_know_voices())), teacher, processes)
    yield listener.figures("voice", Voice(checkpoint).speak(lines))
    if codec is not None:
        yield listener.figures("codec alone", through_codec(teacher, codec, checkpoint))
        yield listener.figures("flite itself", teacher)


def _lines_to_know_voices() -> list[Line]:
    """Other sentences than those that are measured."""
    taught = [text for text in answers_of_the_domain() if not held_out_of_speech(text)]
    texts = dice("voices to know").sample(taught, SENTENCES_TO_KNOW_A_VOICE)
    return [Line("domain", text, voice, 0) for text in texts for voice in VOICES]


def main(
    checkpoint: Annotated[Path, typer.Option(help="A folder that transformers can load.")],
    sentences: Annotated[int, typer.Option(min=3, help="Different ones; those of the domain in every voice.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same speech.")] = 0,
    ceilings: Annotated[bool, typer.Option(help="Measure the codec alone and flite itself, too.")] = True,
    codec: Annotated[Path, typer.Option(help="encoder.* and quantiser.* behind its codes.")] = SHIPPED,
    processes: Annotated[int, typer.Option(min=1, help="That listen.")] = os.cpu_count() or 1,
    report: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
) -> None:
    console = Console()
    lines = lines_to_speak(sentences, seed)
    figures = []
    for measured in measure_voice(checkpoint, lines, codec=codec if ceilings else None, processes=processes):
        figures.append(measured)
        show_voices(console, [measured])
    if report is not None:
        report.write_text(json.dumps([asdict(measured) for measured in figures], indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
