"""Turns against a running platform, timed where a client would hear them."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import httpx

from services.command_line.answer_stream import (
    AnswerEnd,
    AnswerFailedError,
    SoundPiece,
    TextPiece,
    first_model,
    stream_answer,
)
from services.command_line.bench.figures import RunFigures, TurnFigures, summarise
from services.command_line.bench.spoken_questions import SpokenQuestions
from services.command_line.question import Question, request_body

_SILENCE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Workload:
    questions: SpokenQuestions
    voice: str | None = None
    # None leaves the answer its own length.
    most_answer_tokens: int | None = None

    def body(self, number: int, model: str) -> Mapping[str, object]:
        """The same for the same number, sampling included, but for noise below hearing."""
        sound = self.questions.next(number)
        question = Question(sounds=(sound,), is_spoken_back=True, voice=self.voice, seed=number)
        bound = {} if self.most_answer_tokens is None else {"max_completion_tokens": self.most_answer_tokens}
        return {**request_body(question, model), **bound}


@dataclass(slots=True)
class _Tally:
    done: list[TurnFigures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


async def run_turns(base_url: str, workload: Workload, *, concurrency: int, turns: int) -> tuple[RunFigures, list[str]]:
    """`concurrency` clients, each asking again as soon as its answer is whole. Also gives what failed, in words."""
    tally = _Tally()
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=base_url, timeout=_SILENCE_SECONDS, limits=limits) as client:
        model = await first_model(client)
        # One turn before the clock starts: connections, caches and kernels are made once.
        await time_turn(client, workload.body(0, model))
        waiting = iter(range(turns))
        started = time.perf_counter()
        async with asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(_ask_on(client, workload, model, waiting, tally))
        wall_seconds = time.perf_counter() - started
    if not tally.done:
        raise AnswerFailedError(f"No turn succeeded: {tally.failures[0]}")
    failed = len(tally.failures)
    return summarise("antiphon", concurrency, tally.done, failed=failed, wall_seconds=wall_seconds), tally.failures


async def _ask_on(
    client: httpx.AsyncClient, workload: Workload, model: str, waiting: Iterator[int], tally: _Tally
) -> None:
    for number in waiting:
        try:
            tally.done.append(await time_turn(client, workload.body(number, model)))
        except AnswerFailedError as error:
            tally.failures.append(str(error))


async def time_turn(client: httpx.AsyncClient, body: Mapping[str, object]) -> TurnFigures:
    """Raises AnswerFailedError, also for an answer without text or sound: this measures voice."""
    started = time.perf_counter()
    texts: list[float] = []
    sounds: list[float] = []
    audio_seconds = 0.0
    end: AnswerEnd | None = None
    async with aclosing(stream_answer(client, body)) as pieces:
        async for piece in pieces:
            now_ms = (time.perf_counter() - started) * 1000
            match piece:
                case TextPiece():
                    texts.append(now_ms)
                case SoundPiece():
                    sounds.append(now_ms)
                    audio_seconds += piece.seconds
                case AnswerEnd():
                    end = piece
    if not (texts and sounds and end and end.usage):
        raise AnswerFailedError("The answer had no text, no sound or no usage.")
    usage, timings = end.usage, end.timings
    return TurnFigures(
        first_text_ms=texts[0],
        first_audio_ms=sounds[0],
        last_audio_ms=sounds[-1],
        audio_seconds=audio_seconds,
        text_tokens=usage.completion_tokens_details.text_tokens,
        frames=usage.completion_tokens_details.audio_tokens,
        first_packet_ms=(timings.first_packet_ms if timings else None) or {},
        stages=timings.stages if timings else {},
        cached_tokens=usage.prompt_tokens_details.cached_tokens,
    )
