"""Follows what a client says: each of its events becomes a command of the session, with what it needs read before."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from pydantic import JsonValue, ValidationError

from antiphon.errors import InvalidInput
from antiphon.tenancy.caller import Caller
from services.gateway.config import GatewaySettings
from services.gateway.http.invalid_body import invalid_value
from services.gateway.http.media_source import MediaBudget
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.configuration import SessionConfig
from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, Item
from services.gateway.realtime.core.outcomes import Outcomes
from services.gateway.realtime.core.response import AnswerOptions
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.dialect import client_events as sent
from services.gateway.realtime.dialect import session_object
from services.gateway.realtime.dialect.items import ItemReader
from services.gateway.realtime.dialect.session_object import SessionObject
from services.gateway.realtime.sound_formats import pcm16_of
from services.gateway.realtime.tools import check_tools
from services.gateway.realtime.voice_activity import VoiceActivity
from services.gateway.served_model import ServedModel

# Listened to in one go: six windows, of a millisecond each.
_SLICE_MS: Final = 200

SessionJson = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is served, to whom, within which bounds."""

    model: ServedModel
    caller: Caller
    settings: RealtimeSettings
    gateway: GatewaySettings

    def config_of(self, values: SessionJson) -> SessionConfig:
        """Raises InvalidInput or PermissionDenied."""
        try:
            session = SessionObject.model_validate(values)
        except ValidationError as error:
            raise invalid_value(error, {"session": values}, under=("session",)) from None
        config = session_object.session_config(session, self.model, self.settings)
        self.check(config.answers, "session")
        return config

    def check(self, options: AnswerOptions, param: str) -> None:
        if options.speaks:
            self.caller.check_voice(options.voice, f"{param}.audio.output.voice")
        check_tools(options, self.model, self.gateway, f"{param}.tools")


class Commands:
    def __init__(self, session: Session, values: SessionJson, terms: Terms, reader: ItemReader) -> None:
        """values: the session object, as its client sees it."""
        self.values = values
        self._session, self._terms, self._reader = session, terms, reader
        self._voice_activity: VoiceActivity | None = None
        self._generation = -1

    async def follow(self, event: sent.AnyEvent) -> AsyncIterator[Outcomes]:
        """What comes of it, in as many steps as it takes. Raises what the client is to be told."""
        if isinstance(event, sent.AppendSound):
            async for outcomes in self._append(event.audio):
                yield outcomes
        else:
            yield await self._one(event)

    async def _one(self, event: sent.AnyEvent) -> Outcomes:
        session = self._session
        match event:
            case sent.SessionUpdate(session=changes):
                return self._configure(changes)
            case sent.CommitSound():
                return session.commit()
            case sent.ClearSound():
                return session.clear()
            case sent.CreateItem(item=new, previous_item_id=after):
                item = await self._reader.read(new, session.config.input_encoding)
                return session.create_item(item, after)
            case sent.RetrieveItem(item_id=item_id):
                return session.retrieve_item(item_id)
            case sent.TruncateItem():
                return session.truncate_item(event.item_id, event.content_index, event.audio_end_ms)
            case sent.DeleteItem(item_id=item_id):
                return session.delete_item(item_id)
            case sent.CreateResponse(response=params):
                return await self._respond(params or sent.ResponseParams())
            case sent.CancelResponse(response_id=response_id):
                return session.cancel(response_id)
            case _:
                raise InvalidInput(
                    f"'{event.type}' is for WebRTC and SIP: over a web socket the client itself plays what it gets. "
                    "Stop playing, send response.cancel and conversation.item.truncate.",
                    param="type",
                )

    def _configure(self, changes: SessionJson) -> Outcomes:
        if "type" not in changes:
            raise InvalidInput(
                "Missing required parameter: 'session.type'.", param="session.type", code="missing_required_parameter"
            )
        values = session_object.merged(self.values, changes)
        config = self._terms.config_of(values)
        outcomes = self._session.configure(config)
        self.values = SessionObject.model_validate(values).model_dump(mode="json") | self._fixed()
        return outcomes

    def _fixed(self) -> SessionJson:
        return {key: self.values[key] for key in ("id", "object", "expires_at", "model") if key in self.values}

    async def _append(self, audio: str) -> AsyncIterator[Outcomes]:
        """In slices, between which others have their turn."""
        settings, session = self._terms.settings, self._session
        budget = MediaBudget(settings.append_bytes, 1, settings.append_bytes, 1)
        encoding = session.config.input_encoding
        pcm16 = pcm16_of(await self._reader.media.read_base64(audio, "audio", budget, "audio"), encoding, "audio")
        step = SAMPLE_RATES_HZ[encoding] * _SLICE_MS // 1000 * 2
        for first in range(0, len(pcm16), step):
            piece = pcm16[first : first + step]
            yield session.hear(piece, self._probabilities(piece), time.monotonic())
            await asyncio.sleep(0)

    def _probabilities(self, pcm16: bytes) -> list[float]:
        ears = self._session.ears
        if ears.detector is None:
            return []
        if self._voice_activity is None or self._generation != ears.generation:
            self._voice_activity, self._generation = VoiceActivity(ears.buffer.encoding), ears.generation
        return self._voice_activity.push(pcm16)

    async def _respond(self, params: sent.ResponseParams) -> Outcomes:
        options = self._options(params)
        items = None if params.input is None else tuple([await self._input(e, i) for i, e in enumerate(params.input)])
        in_conversation = params.conversation != "none"
        return self._session.respond(options, metadata=params.metadata, in_conversation=in_conversation, items=items)

    async def _input(self, entry: sent.NewItem | sent.ItemReference, index: int) -> Item:
        param = f"response.input[{index}]"
        if not isinstance(entry, sent.ItemReference):
            return await self._reader.read(entry, self._session.config.input_encoding, param)
        item = self._session.items.find(entry.id)
        if item is None:
            raise InvalidInput(f"The item '{entry.id[:64]}' does not exist.", param=f"{param}.id")
        return item

    def _options(self, params: sent.ResponseParams) -> AnswerOptions:
        """Those of the session, but for what this response is given."""
        options, model = self._session.config.answers, self._terms.model
        output = params.audio.output if params.audio else session_object.AudioOutput()
        if params.output_modalities is not None:
            speaks = session_object.speaks(params.output_modalities, model, "response.output_modalities")
            options = replace(options, speaks=speaks)
        if output.voice_name is not None:
            voice = session_object.voice_of(output.voice_name, model, "response.audio.output.voice")
            options = replace(options, voice=voice)
        if output.format is not None:
            options = replace(options, encoding=session_object.encoding_of(output.format))
        if params.instructions is not None:
            options = replace(options, instructions=params.instructions)
        if params.tools is not None:
            options = replace(options, tools=session_object.tools_of(params.tools), tool_choice="auto")
        if params.tool_choice is not None:
            options = replace(options, tool_choice=session_object.choice_of(params.tool_choice))
        if params.max_output_tokens is not None:
            options = replace(options, max_answer_tokens=session_object.token_bound(params.max_output_tokens))
        self._terms.check(options, "response")
        return options
