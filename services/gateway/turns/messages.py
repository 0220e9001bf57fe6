"""The messages that open a turn's streams, built from the request, the layouts and the prompt; and their bounds."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from antiphon.errors import ContextTooLong, InvalidInput
from antiphon.prompt.conversation import Text
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import BuiltPrompt, PositionedTokens, PromptBuilder
from antiphon.v1.encoder_service_pb2 import EncodeInputEnd, EncodeRequest, EncodeStart, MediaChunk, MediaItem
from antiphon.v1.generation_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, Prompt, Scheduling
from antiphon.v1.talker_service_pb2 import SpeakStart
from antiphon.v1.thinker_service_pb2 import GenerateStart, Grammar
from antiphon.wire import arrays
from services.gateway.turns.answer_grammar import with_markers
from services.gateway.turns.answer_reader import AnswerReader
from services.gateway.turns.request import Medium, SpeechRequest, TurnRequest, TurnScheduling

_PRIORITIES: Final = {"interactive": PRIORITY_INTERACTIVE, "batch": PRIORITY_BATCH}
_CHUNK_BYTES: Final = 1 << 20
# Texts shorter than this become tokens at once; longer take a thread, not to hold up other turns.
_INLINE_CHARACTERS: Final = 4096
_ITEM: Final = re.compile(r"items\[(\d{1,4})\]")


@dataclass(frozen=True, slots=True)
class TurnLimits:
    context_tokens: int
    # Rows that the Talker's prompt and frames may take together; 0 without a Talker.
    talker_context_rows: int
    default_answer_tokens: int
    media_seconds: float


async def build_prompt(prompts: PromptBuilder, request: TurnRequest, layouts: Sequence[MediaLayout]) -> BuiltPrompt:
    answer_tokens = request.max_answer_tokens or 1
    texts = (part for message in request.conversation.messages for part in message.parts if isinstance(part, Text))
    told = sum(len(part.text) for part in texts) + sum(map(len, request.conversation.tools))
    if told <= _INLINE_CHARACTERS:
        return prompts.build(request.conversation, layouts, answer_tokens=answer_tokens)
    return await asyncio.to_thread(prompts.build, request.conversation, layouts, answer_tokens=answer_tokens)


async def encode_requests(request: TurnRequest) -> AsyncGenerator[EncodeRequest, None]:
    media = request.media
    start = EncodeStart(
        items=[_item(medium) for medium in media],
        cache_salt=request.cache_salt,
        scheduling=_scheduling(request.scheduling),
    )
    yield EncodeRequest(start=start)
    async for chunk in media_chunks(media):
        yield chunk
    yield EncodeRequest(end=EncodeInputEnd())


async def media_chunks(media: Sequence[Medium]) -> AsyncGenerator[EncodeRequest, None]:
    for index, medium in enumerate(media):
        for start in range(0, len(medium.data), _CHUNK_BYTES):
            chunk = medium.data[start : start + _CHUNK_BYTES]
            yield EncodeRequest(chunk=MediaChunk(index=index, data=chunk))


def generate_start(
    request: TurnRequest, prompt: BuiltPrompt, limits: TurnLimits, prompts: PromptBuilder
) -> GenerateStart:
    room = limits.context_tokens - len(prompt.thinker.token_ids)
    if request.context_tokens is not None:
        room = min(room, _room_of_tenant(request, prompt, request.context_tokens))
    return GenerateStart(
        prompt=_prompt(prompt.thinker),
        sampling=request.sampling,
        max_new_tokens=request.max_answer_tokens or min(limits.default_answer_tokens, room),
        return_multimodal_hidden_rows=request.speech is not None and bool(request.media),
        cache_salt=request.cache_salt,
        scheduling=_scheduling(request.scheduling),
        grammar=_grammar(request, prompt, prompts),
    )


def speak_start(request: TurnRequest, speech: SpeechRequest, prompt: BuiltPrompt, limits: TurnLimits) -> SpeakStart:
    rows = prompt.talker.positions.shape[1]
    if rows >= limits.talker_context_rows:
        raise ContextTooLong(
            f"A spoken answer's context holds {limits.talker_context_rows} tokens; the user's messages take {rows}. "
            "Shorten the messages, or ask for text only.",
            param="messages",
        )
    return SpeakStart(
        prompt=_prompt(prompt.talker),
        assistant_prefix_ids=prompt.assistant_prefix_ids,
        voice=speech.voice,
        sampling=speech.sampling,
        max_frames=min(speech.max_frames, limits.talker_context_rows - rows),
        cache_salt=request.cache_salt,
        scheduling=_scheduling(request.scheduling),
    )


def answer_reader(prompts: PromptBuilder, request: TurnRequest, prompt: BuiltPrompt) -> AnswerReader:
    form = replace(request.form, is_thinking=_is_thinking(prompt, prompts))
    return AnswerReader(prompts.token_bytes, request.stop, form, most_calls=request.most_calls)


def _grammar(request: TurnRequest, prompt: BuiltPrompt, prompts: PromptBuilder) -> Grammar | None:
    if request.grammar is None:
        return None
    is_thinking = _is_thinking(prompt, prompts)
    tokens = prompts.control_tokens
    return Grammar(lark=with_markers(request.grammar.lark, tokens, thinks=request.form.thinks, is_thinking=is_thinking))


def _is_thinking(prompt: BuiltPrompt, prompts: PromptBuilder) -> bool:
    """A template may have opened the thoughts already."""
    special, extra = prompts.special_tokens, prompt.assistant_extra_ids
    return special.think_start in extra and special.think_end not in extra


def check_duration(layouts: Sequence[MediaLayout], limits: TurnLimits) -> None:
    seconds = sum(max(layout.audio_seconds, layout.grid_time * layout.seconds_per_grid) for layout in layouts)
    if seconds > limits.media_seconds:
        raise InvalidInput(
            f"The media are too long: at most {limits.media_seconds:g} s together; these last {seconds:.1f} s.",
            param="messages",
            code="media_too_long",
        )


def param_of_item(error: InvalidInput, media: Sequence[Medium]) -> str | None:
    """The encoders count media; the client knows them by their place in his request, and all of them as messages."""
    if error.param in (None, "items"):
        return "messages"
    found = _ITEM.match(error.param or "")
    if found is None or int(found[1]) >= len(media):
        return error.param
    return media[int(found[1])].param


def _room_of_tenant(request: TurnRequest, prompt: BuiltPrompt, context_tokens: int) -> int:
    """Raises ContextTooLong where prompt and asked answer take more than the tenant's turns may."""
    prompt_tokens, answer_tokens = len(prompt.thinker.token_ids), request.max_answer_tokens or 1
    if prompt_tokens + answer_tokens > context_tokens:
        raise ContextTooLong(
            f"This key allows {context_tokens} tokens a turn; the messages take {prompt_tokens} and the answer "
            f"{answer_tokens}. Shorten the messages, or lower max_completion_tokens.",
            param="messages",
        )
    return context_tokens - prompt_tokens


def _scheduling(scheduling: TurnScheduling) -> Scheduling:
    return Scheduling(tenant=scheduling.tenant, weight=scheduling.weight, priority=_PRIORITIES[scheduling.priority])


def _item(medium: Medium) -> MediaItem:
    return MediaItem(
        modality=medium.modality,
        byte_count=len(medium.data),
        video_fps=medium.video_fps,
        use_audio_in_video=medium.use_audio_in_video,
    )


def _prompt(tokens: PositionedTokens) -> Prompt:
    return Prompt(
        token_ids=tokens.token_ids,
        positions=arrays.pack(tokens.positions),
        next_position=tokens.next_position,
    )
