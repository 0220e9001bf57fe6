"""What was measured of a checkpoint, as it is written down and read again."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from recipes.nano.evaluation.answers import ClassFigures
from recipes.nano.evaluation.voice_figures import VoiceFigures


@dataclass(frozen=True)
class Report:
    """answers: of each class; speech: of the voice alone, its ceilings, and of spoken answers by both ways."""

    answers: list[ClassFigures]
    speech: list[VoiceFigures]

    def of_class(self, name: str) -> ClassFigures:
        return next(figures for figures in self.answers if figures.of_class == name)

    def of_speech(self, name: str) -> VoiceFigures:
        return next(figures for figures in self.speech if figures.of == name)

    def write(self, file: Path) -> None:
        file.write_bytes(TypeAdapter(Report).dump_json(self, indent=1) + b"\n")

    @classmethod
    def read(cls, file: Path) -> "Report":
        """Raises pydantic.ValidationError where it is none."""
        return TypeAdapter(Report).validate_json(file.read_bytes())
