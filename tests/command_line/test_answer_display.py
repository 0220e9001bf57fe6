"""What a person sees while an answer comes, and the table at its end."""

from io import StringIO

import pytest
from rich.console import Console

from services.command_line import answer_display
from services.command_line.answer_display import AnswerClock, AnswerDisplay, first_packet_table
from services.command_line.answer_stream import AnswerEnd, SoundPiece, TextPiece, Timings, Usage
from tests.command_line.fake_platform import TIMINGS, USAGE

HALF_A_SECOND = SoundPiece(b"\0\0" * 12_000)


def test_sound_alone_shows_a_sign_of_life_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_display, "PATIENCE_SECONDS", 0.0)
    output, notes = Console(file=StringIO()), Console(file=StringIO(), force_terminal=True, width=80)
    display = AnswerDisplay(output, notes)
    display.text(TextPiece("It is"))
    display.sound(1.5)
    display.text(TextPiece(" weak."))
    display.close()
    assert output.file.getvalue() == "It is\n weak.\n"
    assert "Speaking … 1.5 s" in notes.file.getvalue()


def test_nothing_but_the_text_is_shown_elsewhere() -> None:
    output, notes = Console(file=StringIO()), Console(file=StringIO())
    display = AnswerDisplay(output, notes)
    display.text(TextPiece("[bold]1 < 2"))
    display.sound(1.5)
    display.close()
    assert (output.file.getvalue(), notes.file.getvalue()) == ("[bold]1 < 2\n", "")


def test_the_table_follows_the_parts_and_adds_up() -> None:
    table = first_packet_table(Timings.model_validate(TIMINGS))
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["prepare", "encoders", "thinker", "talker", "codec", "emit", "total"]
    assert columns[1] == ["1.0", "20.0", "30.0", "40.0", "8.0", "1.0", "100.0"]
    assert columns[2] == ["1%", "20%", "30%", "40%", "8%", "1%", "100%"]


def test_a_stage_that_a_turn_does_not_need_is_left_out() -> None:
    parts = {"prepare": 1.0, "encoders": 0.0, "thinker": 9.0, "talker": 0.0, "codec": 0.0, "emit": 0.0, "total": 10.0}
    table = first_packet_table(Timings(first_packet_ms=parts))
    assert list(table.columns[0].cells) == ["prepare", "thinker", "total"]


def test_the_summary_tells_speed_and_a_cut() -> None:
    clock = AnswerClock()
    clock.text()
    clock.sound(HALF_A_SECOND)
    clock.sound(HALF_A_SECOND)
    clock.first_text, clock.first_sound, clock.last_sound = 0.1, 0.2, 0.75
    output = Console(file=StringIO(), width=200)
    AnswerDisplay(output, output).figures(clock, AnswerEnd("length", Usage.model_validate(USAGE), None))
    assert output.file.getvalue() == (
        "first text 100 ms, first sound 200 ms, 1.00 s of speech in 0.75 s (0.75 of real time), 30 tokens in, 17 out, "
        "cut at its length limit\n"
    )
