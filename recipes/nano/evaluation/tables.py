"""Figures as a reader sees them."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from recipes.nano.evaluation.answers import ClassFigures
from recipes.nano.evaluation.recogniser import MEASURES
from recipes.nano.evaluation.voice_figures import Soundness, VoiceFigures


def answer_table(figures: Sequence[ClassFigures]) -> Table:
    table = Table(title="Answers: the whole answer equals the reference", title_justify="left")
    table.add_column("class")
    for name in ("asked", "right by transformers", "right through Antiphon", "both say the same"):
        table.add_column(name, justify="right")
    for row in figures:
        counts = (row.asked, row.right_by_transformers, row.right_by_antiphon, row.same)
        table.add_row(row.of_class, *map(str, counts))
    return table


def voice_table(measured: VoiceFigures) -> Group:
    table = Table(title=f"Word errors: {measured.of}", title_justify="left", caption=_soundness(measured.soundness))
    for name in ("sentences", "voice"):
        table.add_column(name)
    for name in ("asked", "words", *MEASURES, "understood whole"):
        table.add_column(name, justify="right")
    for row in measured.understood:
        rates = (f"{row.word_error_rate[measure]:.3f}" for measure in MEASURES)
        whole = f"{row.whole_sentences / row.sentences:.0%}"
        table.add_row(row.kind, row.voice, str(row.sentences), str(row.words), *rates, whole)
    return Group(table, "")


def _soundness(sound: Soundness) -> str:
    length = "" if sound.length is None else f", {sound.length:.2f} times as long as its teacher"
    return (
        f"ended by itself {sound.ended_by_themselves:.0%}, clipped {sound.clipped:.0%}, the right voice "
        f"{sound.right_voice:.0%}, RMS {sound.rms:.3f}{length}"
    )
