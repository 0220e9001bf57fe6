"""How an answer looks in a terminal: its text as it comes, a sign of life while only sound comes, the figures last."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

from antiphon.telemetry.names import FIRST_PACKET_PARTS
from services.command_line.answer_stream import AnswerEnd, SoundPiece, TextPiece, Timings
from services.command_line.waiting import PATIENCE_SECONDS

_BAR_CHARACTERS: Final = 12
# Less is nothing in a table of tenths.
_SHOWN_MS: Final = 0.05


@dataclass(slots=True)
class AnswerClock:
    """When things arrived, in seconds since the question was sent."""

    started: float = field(default_factory=time.monotonic)
    first_text: float | None = None
    first_sound: float | None = None
    last_sound: float | None = None
    speech_seconds: float = 0.0

    def text(self) -> None:
        if self.first_text is None:
            self.first_text = self._elapsed()

    def sound(self, piece: SoundPiece) -> None:
        self.last_sound = self._elapsed()
        if self.first_sound is None:
            self.first_sound = self.last_sound
        self.speech_seconds += piece.seconds

    def _elapsed(self) -> float:
        return time.monotonic() - self.started


class AnswerDisplay:
    def __init__(self, output: Console, notes: Console) -> None:
        """output: the answer and its figures; notes: signs of life and errors."""
        self._output, self._notes = output, notes
        self._shown_at = time.monotonic()
        self._is_inside_line = False
        self._status: Status | None = None

    def text(self, piece: TextPiece) -> None:
        self._end_status()
        self._output.print(piece.text, end="", markup=False, highlight=False, soft_wrap=True)
        self._output.file.flush()
        self._is_inside_line = True
        self._shown_at = time.monotonic()

    def sound(self, speech_seconds: float) -> None:
        """Only shown when nothing else has been for a while."""
        if not self._notes.is_terminal or time.monotonic() - self._shown_at < PATIENCE_SECONDS:
            return
        self._end_line()
        if self._status is None:
            self._status = Status("", console=self._notes)
            self._status.start()
        self._status.update(f"Speaking … {speech_seconds:.1f} s of speech")

    def close(self) -> None:
        self._end_status()
        self._end_line()

    def figures(self, clock: AnswerClock, end: AnswerEnd) -> None:
        if end.timings is not None and end.timings.first_packet_ms:
            self._output.print(first_packet_table(end.timings))
        self._output.print(_summary(clock, end), highlight=False, soft_wrap=True)

    def where(self, file: Path, clock: AnswerClock) -> None:
        """Where the spoken answer is."""
        told = (
            f"Spoken answer: {file}"
            if clock.speech_seconds
            else f"The answer came without sound; {file} is not written."
        )
        self._output.print(told, highlight=False, markup=False, soft_wrap=True)

    def _end_line(self) -> None:
        if self._is_inside_line:
            self._output.print()
            self._is_inside_line = False

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def first_packet_table(timings: Timings) -> Table:
    """The parts follow each other without a gap; beside them what each stage says of the whole turn."""
    parts = timings.first_packet_ms or {}
    total = parts.get("total", sum(parts.values()))
    table = Table(title="First packet, stage by stage (ms)", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for heading in ("took", "share"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for heading in ("queued", "first out", "turn", "steps"):
        table.add_column(heading, justify="right")
    for part in FIRST_PACKET_PARTS:
        # A stage that a turn does not need is left out.
        if parts.get(part, 0.0) >= _SHOWN_MS or part in timings.stages:
            table.add_row(part, *_share_cells(parts.get(part, 0.0), total), *_stage_cells(timings, part))
    table.add_section()
    table.add_row("total", *_share_cells(total, total)[:2])
    return table


def _share_cells(part_ms: float, total_ms: float) -> list[str]:
    share = part_ms / total_ms if total_ms else 0.0
    return [f"{part_ms:.1f}", f"{share:.0%}", "━" * round(share * _BAR_CHARACTERS)]


def _stage_cells(timings: Timings, part: str) -> list[str]:
    stage = timings.stages.get(part)
    if stage is None:
        return []
    return [f"{stage.queue_ms:.1f}", f"{stage.first_output_ms:.1f}", f"{stage.total_ms:.1f}", str(stage.steps)]


def _summary(clock: AnswerClock, end: AnswerEnd) -> str:
    said = []
    if clock.first_text is not None:
        said.append(f"first text {clock.first_text * 1000:.0f} ms")
    if clock.first_sound is not None and clock.last_sound is not None and clock.speech_seconds:
        said.append(f"first sound {clock.first_sound * 1000:.0f} ms")
        factor = clock.last_sound / clock.speech_seconds
        said.append(f"{clock.speech_seconds:.2f} s of speech in {clock.last_sound:.2f} s ({factor:.2f} of real time)")
    if end.usage is not None:
        said.append(f"{end.usage.prompt_tokens} tokens in, {end.usage.completion_tokens} out")
    if end.finish_reason == "length":
        said.append("cut at its length limit")
    return ", ".join(said)
