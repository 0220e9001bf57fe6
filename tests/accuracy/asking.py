"""Asks a running Antiphon the held-out items through the stock OpenAI client, several at a time."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import soundfile
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionContentPartParam, ChatCompletionMessageParam

from .domain.items import Film, Item, Part, Picture, Sound, Speech, Text, Turn

AT_ONCE = 8
TIMEOUT_SECONDS = 120.0
MOST_TOKENS = 64

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Spoken:
    """One spoken answer; `samples` is one channel at `rate_hz`."""

    transcript: str
    finish_reason: str
    samples: Samples
    rate_hz: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz


def written_answers(base_url: str, items: Iterable[Item]) -> Mapping[str, str]:
    """Each item's answer by its name, the Thinker greedy."""

    async def ask(client: AsyncOpenAI, model: str, item: Item) -> str:
        completion = await client.chat.completions.create(
            model=model, messages=messages(item), temperature=0, max_completion_tokens=MOST_TOKENS
        )
        return completion.choices[0].message.content or ""

    return asyncio.run(_all_answers(base_url, items, ask))


def spoken_answers(base_url: str, items: Iterable[tuple[Item, str, int]]) -> Mapping[str, Spoken]:
    """Each item's answer by its name, said by the voice and drawn with the seed that stand beside it."""
    wanted = {item.name: (voice, seed) for item, voice, seed in items}

    async def ask(client: AsyncOpenAI, model: str, item: Item) -> Spoken:
        voice, seed = wanted[item.name]
        completion = await client.chat.completions.create(
            model=model,
            messages=messages(item),
            modalities=["text", "audio"],
            audio={"voice": voice, "format": "wav"},
            seed=seed,
            max_completion_tokens=MOST_TOKENS,
        )
        return _spoken(completion)

    return asyncio.run(_all_answers(base_url, [item for item, _, _ in items], ask))


async def _all_answers(
    base_url: str, items: Iterable[Item], ask: Callable[[AsyncOpenAI, str, Item], Awaitable[Answer]]
) -> Mapping[str, Answer]:
    places, answers = asyncio.Semaphore(AT_ONCE), dict[str, Answer]()

    async def ask_in_turn(item: Item) -> None:
        async with places:
            answers[item.name] = await ask(client, model, item)

    async with AsyncOpenAI(base_url=base_url, api_key="unused", timeout=TIMEOUT_SECONDS, max_retries=0) as client:
        model = (await client.models.list()).data[0].id
        async with asyncio.TaskGroup() as asked:
            for item in items:
                asked.create_task(ask_in_turn(item))
    return answers


def messages(item: Item) -> list[ChatCompletionMessageParam]:
    told: list[ChatCompletionMessageParam] = []
    if item.system:
        told.append({"role": "system", "content": item.system})
    for turn in item.turns[:-1]:
        told.append({"role": "user", "content": _content(turn)})
        told.append({"role": "assistant", "content": turn.answer})
    return [*told, {"role": "user", "content": _content(item.turns[-1])}]


def _content(turn: Turn) -> str | list[ChatCompletionContentPartParam]:
    match turn.parts:
        case (Text(text),):
            return text
        case _:
            return [_part(part) for part in turn.parts]


def _part(part: Part) -> ChatCompletionContentPartParam:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Speech() | Sound():
            return {"type": "input_audio", "input_audio": {"data": _as_wav(part.file), "format": "wav"}}
        case Picture():
            return {"type": "image_url", "image_url": {"url": _data_url("image/png", part.file)}}
        case Film():
            # Not in OpenAI's types; vLLM and DashScope take it in this form.
            film = {"type": "video_url", "video_url": {"url": _data_url("image/gif", part.file)}}
            return cast(ChatCompletionContentPartParam, film)


def _as_wav(flac: Path) -> str:
    samples, rate_hz = soundfile.read(flac, dtype="int16")
    out = BytesIO()
    soundfile.write(out, samples, rate_hz, format="WAV", subtype="PCM_16")
    return base64.b64encode(out.getvalue()).decode()


def _data_url(content_type: str, file: Path) -> str:
    return f"data:{content_type};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _spoken(completion: ChatCompletion) -> Spoken:
    (choice,) = completion.choices
    assert choice.message.audio is not None, "expected message.audio for modalities text and audio"
    samples, rate_hz = soundfile.read(BytesIO(base64.b64decode(choice.message.audio.data)), dtype="float32")
    return Spoken(choice.message.audio.transcript, choice.finish_reason, samples, rate_hz)
