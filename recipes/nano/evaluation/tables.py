"""Figures as a reader sees them."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from recipes.nano.evaluation.recogniser import MEASURES
from recipes.nano.evaluation.voice_figures import VoiceFigures


def show_voices(console: Console, figures: Sequence[VoiceFigures]) -> None:
    for measured in figures:
        console.print(_understood(measured))
        sound = measured.soundness
        console.print(
            f"ended by itself {sound.ended_by_themselves:.0%}, clipped {sound.clipped:.0%}, the right voice "
            f"{sound.right_voice:.0%}, RMS {sound.rms:.3f}, as long as its teacher {sound.length:.2f}\n"
        )


def _understood(measured: VoiceFigures) -> Table:
    table = Table(title=f"Word errors: {measured.of}", title_justify="left")
    for name in ("sentences", "voice"):
        table.add_column(name)
    for name in ("asked", "words", *(f"expecting {measure}" for measure in MEASURES), "understood whole"):
        table.add_column(name, justify="right")
    for row in measured.understood:
        rates = (f"{row.word_error_rate[measure]:.3f}" for measure in MEASURES)
        whole = f"{row.whole_sentences / row.sentences:.0%}" if row.sentences else "-"
        table.add_row(row.kind, row.voice, str(row.sentences), str(row.words), *rates, whole)
    return table
