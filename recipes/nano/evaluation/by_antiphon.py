"""A checkpoint answers through Antiphon's API, asked by the stock OpenAI client, several questions at a time."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final, TypeVar, cast

import soundfile
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionContentPartParam, ChatCompletionMessageParam
from PIL import Image

from recipes.nano.domain import films
from recipes.nano.domain.voices import RATE_HZ
from recipes.nano.evaluation.questions import Film, Part, Picture, Question, Sound, Turn
from recipes.nano.evaluation.speech import MOST_FRAMES, Speech, SpokenQuestion
from services.embedded import embedded_platform

AT_ONCE: Final = 8
TIMEOUT_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = MOST_FRAMES * 0.08

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Ask = Callable[[AsyncOpenAI, str, Asked], Awaitable[Answer]]


def answers_of(
    checkpoint: Path, written: Sequence[Question], spoken: Sequence[SpokenQuestion], most_tokens: int
) -> tuple[Mapping[str, str], list[Speech]]:
    """Written ones by the question's name, spoken ones in order, from a platform that lives as long as this."""

    async def ask() -> tuple[Mapping[str, str], list[Speech]]:
        async with embedded_platform(checkpoint) as root:
            base_url = f"{root}/v1"
            texts = await _write(base_url, written, most_tokens)
            return texts, await _speak(base_url, spoken, most_tokens)

    return asyncio.run(ask())


def written_answers(base_url: str, questions: Sequence[Question], most_tokens: int = 64) -> Mapping[str, str]:
    """Each answer by its question's name, the Thinker greedy."""
    return asyncio.run(_write(base_url, questions, most_tokens))


def spoken_answers(base_url: str, questions: Sequence[SpokenQuestion], most_tokens: int = 64) -> list[Speech]:
    """In order; the text of each line is the transcript."""
    return asyncio.run(_speak(base_url, questions, most_tokens))


async def _write(base_url: str, questions: Sequence[Question], most_tokens: int) -> Mapping[str, str]:
    async def ask(client: AsyncOpenAI, model: str, question: Question) -> str:
        completion = await client.chat.completions.create(
            model=model, messages=messages(question), temperature=0, max_completion_tokens=most_tokens
        )
        return completion.choices[0].message.content or ""

    answers = await _in_turn(base_url, questions, ask)
    return {question.name: answer for question, answer in zip(questions, answers, strict=True)}


async def _speak(base_url: str, questions: Sequence[SpokenQuestion], most_tokens: int) -> list[Speech]:
    async def ask(client: AsyncOpenAI, model: str, asked: SpokenQuestion) -> Speech:
        completion = await client.chat.completions.create(
            model=model,
            messages=messages(asked.question),
            modalities=["text", "audio"],
            audio={"voice": asked.voice, "format": "wav"},
            seed=asked.seed,
            max_completion_tokens=most_tokens,
        )
        return _heard(asked, completion)

    return await _in_turn(base_url, questions, ask)


async def _in_turn(base_url: str, all_asked: Iterable[Asked], ask: Ask[Asked, Answer]) -> list[Answer]:
    places = asyncio.Semaphore(AT_ONCE)

    async def ask_in_turn(client: AsyncOpenAI, model: str, asked: Asked) -> Answer:
        async with places:
            return await ask(client, model, asked)

    async with AsyncOpenAI(base_url=base_url, api_key="unused", timeout=TIMEOUT_SECONDS, max_retries=0) as client:
        model = (await client.models.list()).data[0].id
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask_in_turn(client, model, asked)) for asked in all_asked]
    return [task.result() for task in tasks]


def messages(question: Question) -> list[ChatCompletionMessageParam]:
    told: list[ChatCompletionMessageParam] = []
    if question.system:
        told.append({"role": "system", "content": question.system})
    for turn in question.turns[:-1]:
        told.append({"role": "user", "content": _content(turn)})
        told.append({"role": "assistant", "content": turn.answer})
    return [*told, {"role": "user", "content": _content(question.turns[-1])}]


def _content(turn: Turn) -> str | list[ChatCompletionContentPartParam]:
    match turn.parts:
        case (str(text),):
            return text
        case _:
            return [_part(part) for part in turn.parts]


def _part(part: Part) -> ChatCompletionContentPartParam:
    match part:
        case str(text):
            return {"type": "text", "text": text}
        case Sound():
            return {"type": "input_audio", "input_audio": {"data": _base64(_wav(part)), "format": "wav"}}
        case Picture():
            return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_base64(_png(part))}"}}
        case Film():
            frames = [Image.fromarray(frame) for frame in part.frames]
            url = f"data:image/gif;base64,{_base64(films.as_gif(frames))}"
            # Not in OpenAI's types; vLLM and DashScope take it in this form.
            return cast(ChatCompletionContentPartParam, {"type": "video_url", "video_url": {"url": url}})


def _wav(sound: Sound) -> bytes:
    out = BytesIO()
    soundfile.write(out, sound.samples, RATE_HZ, format="WAV", subtype="PCM_16")
    return out.getvalue()


def _png(picture: Picture) -> bytes:
    out = BytesIO()
    Image.fromarray(picture.pixels).save(out, "PNG")
    return out.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _heard(asked: SpokenQuestion, completion: ChatCompletion) -> Speech:
    (choice,) = completion.choices
    audio = choice.message.audio
    if audio is None:
        raise RuntimeError(f"Expected message.audio for {asked.question.name}; the answer has none: {completion}")
    samples, rate_hz = soundfile.read(BytesIO(base64.b64decode(audio.data)), dtype="float32")
    ended = choice.finish_reason == "stop" and len(samples) / rate_hz < LONGEST_SECONDS
    return Speech(asked.line(audio.transcript), samples, rate_hz, ended)
