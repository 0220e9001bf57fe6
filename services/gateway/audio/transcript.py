"""What was heard, in the forms that OpenAI's transcription API answers."""

from math import ceil
from typing import Literal

from pydantic import BaseModel, Field

from antiphon.prompt.prompt import TokenCounts
from services.gateway.turns.request import TurnEnd

Task = Literal["transcribe", "translate"]


class InputTokenDetails(BaseModel):
    text_tokens: int
    audio_tokens: int


class TokenUsage(BaseModel):
    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputTokenDetails


class DurationUsage(BaseModel):
    type: Literal["duration"] = "duration"
    # Begun ones: some clients take whole numbers only.
    seconds: int


class Transcription(BaseModel):
    text: str
    usage: TokenUsage


class Segment(BaseModel):
    """All of the sound: nothing tells where its sentences begin, nor how sure they are."""

    id: int = 0
    seek: int = 0
    start: float = 0.0
    end: float
    text: str
    temperature: float
    tokens: list[int] = []


class VerboseTranscription(BaseModel):
    task: Task
    language: str = Field(description="As it was asked for; unknown when it was not.")
    duration: float
    text: str
    segments: list[Segment]
    usage: DurationUsage


class TranscriptDelta(BaseModel):
    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class TranscriptDone(BaseModel):
    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    usage: TokenUsage


def usage_of(end: TurnEnd) -> TokenUsage:
    prompt: TokenCounts = end.prompt_tokens
    return TokenUsage(
        input_tokens=prompt.total,
        output_tokens=end.text_tokens,
        total_tokens=prompt.total + end.text_tokens,
        input_token_details=InputTokenDetails(text_tokens=prompt.text, audio_tokens=prompt.audio),
    )


def verbose(task: Task, language: str, text: str, seconds: float, temperature: float) -> VerboseTranscription:
    segment = Segment(end=seconds, text=text, temperature=temperature)
    usage = DurationUsage(seconds=ceil(seconds))
    return VerboseTranscription(
        task=task, language=language, duration=seconds, text=text, segments=[segment], usage=usage
    )


def srt(text: str, seconds: float) -> str:
    return f"1\n{_time(0, ',')} --> {_time(seconds, ',')}\n{text}\n\n"


def vtt(text: str, seconds: float) -> str:
    return f"WEBVTT\n\n{_time(0, '.')} --> {_time(seconds, '.')}\n{text}\n\n"


def _time(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{point}{milliseconds:03}"
