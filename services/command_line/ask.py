"""`antiphon ask`: one question to the platform; its answer as text while it is written, as sound while it is spoken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from antiphon.errors import AntiphonError, CheckpointError
from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.wire.errors import family_member
from services.command_line.answer_display import AnswerClock, AnswerDisplay
from services.command_line.answer_file import AnswerFile
from services.command_line.answer_stream import (
    AnswerEnd,
    AnswerFailedError,
    AnswerPiece,
    SoundPiece,
    TextPiece,
    first_model,
    stream_answer,
)
from services.command_line.question import Question, UnknownMediumError, request_body
from services.command_line.waiting import waiting

# Until the first piece and between two; longer than any turn of a healthy platform takes.
_SILENCE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Target:
    # None starts the platform in this process, with the checkpoint.
    base_url: str | None
    # None is the one that ships with the project.
    checkpoint: Path | None
    # None asks the platform what it has.
    model: str | None


@dataclass(frozen=True, slots=True)
class Terminal:
    # The answer and its figures.
    output: Console
    # Signs of life and errors.
    notes: Console


def ask(
    text: Annotated[
        str | None, typer.Argument(help="What to ask. With nothing at all, the spoken example is asked.")
    ] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="A sound to hear.", exists=True, dir_okay=False)] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to see.", exists=True, dir_okay=False)] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A film to watch.", exists=True, dir_okay=False)] = None,
    hear_video: Annotated[bool, typer.Option("--hear-video", help="Hear the films' own sound too.")] = False,
    voice: Annotated[str | None, typer.Option(help="Who speaks, such as ethan, chelsie or aiden.")] = None,
    speak: Annotated[Path | None, typer.Option(help="A wav file for the spoken answer.", dir_okay=False)] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the text; 0 always takes the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    base_url: Annotated[str | None, typer.Option(help="A running platform; by default one is started here.")] = None,
    model: Annotated[str | None, typer.Option(help="By the platform's name for it; its first by default.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="What to start; nano by default.", exists=True, file_okay=False)
    ] = None,
) -> None:
    """Ask in text, sound, pictures or film; read the answer as it is written and hear it."""
    question = Question(
        text=text,
        sounds=tuple(audio or ()),
        images=tuple(image or ()),
        videos=tuple(video or ()),
        hears_videos=hear_video,
        is_spoken_back=speak is not None,
        voice=voice,
        temperature=temperature,
        seed=seed,
    )
    terminal = Terminal(Console(), Console(stderr=True))
    try:
        asyncio.run(ask_once(question, Target(base_url, checkpoint, model), speak, terminal))
    except (AnswerFailedError, AntiphonError, UnknownMediumError, OSError, BaseExceptionGroup) as error:
        known = family_member(error) if isinstance(error, BaseExceptionGroup) else error
        if known is None:
            raise
        terminal.notes.print(f"[bold red]antiphon ask:[/] {escape(str(known))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


async def ask_once(question: Question, target: Target, speak: Path | None, terminal: Terminal) -> None:
    if question.is_empty:
        question = question.about_sound(example_question())
        terminal.notes.print(f"Asking {question.sounds[0].name}, the spoken example.", highlight=False)
    async with _connected(target, terminal.notes) as client:
        body = request_body(question, target.model or await first_model(client))
        display, clock = AnswerDisplay(terminal.output, terminal.notes), AnswerClock()
        with AnswerFile(speak) as file:
            async with aclosing(stream_answer(client, body)) as pieces:
                end = await _show(pieces, display, clock, file, terminal.notes)
        display.figures(clock, end)
        if speak is not None:
            display.where(speak, clock)


def example_question() -> Path:
    """A question asked aloud, to which nano knows the answer."""
    question = default_checkpoint() / "examples" / "question.wav"
    if not question.exists():
        raise CheckpointError(f"Expected the example question {question}; it is missing. Ask something of your own.")
    return question


async def _show(
    pieces: AsyncIterator[AnswerPiece], display: AnswerDisplay, clock: AnswerClock, file: AnswerFile, notes: Console
) -> AnswerEnd:
    async with waiting(notes, "Waiting for the answer"):
        piece = await anext(pieces)
    try:
        while not isinstance(piece, AnswerEnd):
            match piece:
                case TextPiece():
                    clock.text()
                    display.text(piece)
                case SoundPiece():
                    clock.sound(piece)
                    file.write(piece)
                    display.sound(clock.speech_seconds)
            piece = await anext(pieces)
    finally:
        display.close()
    return piece


@asynccontextmanager
async def _connected(target: Target, notes: Console) -> AsyncIterator[httpx.AsyncClient]:
    if target.base_url is not None:
        async with _client(target.base_url) as client:
            yield client
        return
    # Here, since asking a running platform needs neither torch nor a model.
    from services.embedded import embedded_platform

    async with AsyncExitStack() as opened:
        async with waiting(notes, "Starting the platform in this process"):
            base_url = await opened.enter_async_context(embedded_platform(target.checkpoint or default_checkpoint()))
        yield await opened.enter_async_context(_client(base_url))


def _client(base_url: str) -> httpx.AsyncClient:
    """Accepts the address with or without OpenAI's /v1."""
    return httpx.AsyncClient(base_url=base_url.rstrip("/").removesuffix("/v1"), timeout=_SILENCE_SECONDS)
