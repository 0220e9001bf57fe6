"""A live session: its configuration, its conversation, the sound that comes in and the answers that are given.

Every method is a command of the client or a fact from elsewhere, and returns what comes of it, in order. A command
that cannot be followed raises InvalidInput and changes nothing. Moments are seconds of one monotonic clock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.answer import Answer, MakeId
from services.gateway.realtime.core.answers import Answers
from services.gateway.realtime.core.configuration import SessionConfig, SessionLimits
from services.gateway.realtime.core.ears import Ears, SoundGrew, TurnBegan, TurnDone, TurnPaused, TurnWentOn
from services.gateway.realtime.core.foresight import Foresight
from services.gateway.realtime.core.items import InputSound, Item, ItemList, UserItem
from services.gateway.realtime.core.outcomes import (
    BufferCleared,
    BufferCommitted,
    IdleTimeout,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemRetrieved,
    ItemTruncated,
    ListenerStopped,
    Outcomes,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    StopAnswer,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
)
from services.gateway.realtime.core.playing import Playing
from services.gateway.realtime.core.response import AnswerOptions, Failure, Response, StopReason, Usage
from services.gateway.realtime.core.truncation import truncated


class Session:
    def __init__(self, config: SessionConfig, limits: SessionLimits, make_id: MakeId) -> None:
        self.config, self._limits, self._make_id = config, limits, make_id
        self.items = ItemList(limits.items, limits.item_bytes)
        self.ears = Ears(config.input_encoding, config.turn_detection, limits.buffer_seconds, limits.quiet_seconds)
        self._answers = Answers(self.items, make_id, limits.side_responses)
        self._playing = Playing()
        self._foresight = Foresight(self.items, tells_beginnings=limits.tells_beginnings)
        # Announced by speech_started, made when the speech ends.
        self._coming_item_id: str | None = None
        # The user has said something while an answer went on that may not be interrupted.
        self.owes_answer = False
        self.has_spoken = False

    # Configuration.

    def configure(self, config: SessionConfig) -> Outcomes:
        old = self.config.answers
        if self.has_spoken and config.answers.voice != old.voice:
            raise InvalidInput(
                f"The voice of a session is fixed once it has been heard: it is '{old.voice}'. Open another session.",
                param="session.audio.output.voice",
                code="cannot_update_voice",
            )
        self.ears.configure(config.input_encoding, config.turn_detection)
        self.config = config
        return [SessionUpdated(), *self._foresight.nothing(), *self.beginning()]

    # Sound that comes in.

    def hear(self, pcm16: bytes, probabilities: Sequence[float], now: float) -> Outcomes:
        """probabilities: of speech, for each window that has become whole with this sound."""
        outcomes: Outcomes = []
        for fact in self.ears.hear(pcm16, probabilities, may_time_out=self._answers.current is None, now=now):
            match fact:
                case TurnBegan():
                    outcomes += self._begin_turn(fact, now)
                case TurnDone():
                    outcomes += [*self._end_turn(fact), *self._foresight.nothing()]
                case TurnPaused(pcm16):
                    outcomes += self._foresee(pcm16)
                case TurnWentOn():
                    outcomes += self._foresight.nothing()
                case SoundGrew(pcm16):
                    outcomes += self.beginning(pcm16)
        return outcomes

    def commit(self) -> Outcomes:
        held_ms = self.ears.buffer.held_ms
        if held_ms < self._limits.least_commit_ms:
            raise InvalidInput(
                f"Error committing input audio buffer: expected at least {self._limits.least_commit_ms:g} ms of sound; "
                f"the buffer holds {held_ms:.0f} ms.",
                code="input_audio_buffer_commit_empty",
            )
        return [*self._commit(self.ears.take_all()), *self._foresight.nothing()]

    def clear(self) -> Outcomes:
        self.ears.take_all()
        self._coming_item_id = None
        return [BufferCleared(), *self._foresight.nothing()]

    def played_until(self, moment: float) -> None:
        """The listener will have heard all that he was sent; quiet counts from there."""
        self.ears.quiet_since = moment

    def transcribed(self, item_id: str, content_index: int, transcript: str, usage: Usage) -> Outcomes:
        item = self.items.find(item_id)
        if isinstance(item, UserItem):
            parts = tuple(
                replace(part, transcript=transcript)
                if index == content_index and isinstance(part, InputSound)
                else part
                for index, part in enumerate(item.parts)
            )
            self.items.replace(replace(item, parts=parts))
        return [Transcribed(item_id, content_index, transcript, usage)]

    def not_transcribed(self, item_id: str, content_index: int, failure: Failure) -> Outcomes:
        return [TranscriptionFailed(item_id, content_index, failure)]

    # The conversation.

    def create_item(self, item: Item, after: str | None) -> Outcomes:
        previous_id = self.items.insert(item, after)
        return [ItemAdded(item, previous_id), ItemDone(item, previous_id), *self._foresight.nothing()]

    def retrieve_item(self, item_id: str) -> Outcomes:
        return [ItemRetrieved(self._item(item_id, "retrieve"))]

    def delete_item(self, item_id: str) -> Outcomes:
        self.items.delete(self._item(item_id, "delete").id)
        return [ItemDeleted(item_id), *self._foresight.nothing()]

    def truncate_item(self, item_id: str, content_index: int, audio_end_ms: int) -> Outcomes:
        """What was not heard is forgotten: the transcript keeps the words that had been said by then."""
        item, end_ms = truncated(self._item(item_id, "truncate"), content_index, audio_end_ms)
        self.items.replace(item)
        return [ItemTruncated(item_id, content_index, end_ms), *self._foresight.nothing()]

    def standing(self, now: float) -> list[Item]:
        """Its items, if the answer that is being given ended now."""
        return self._playing.standing(self.items, self._answers.current, now)

    # Answers.

    def respond(
        self,
        options: AnswerOptions,
        *,
        metadata: Mapping[str, str] | None = None,
        in_conversation: bool = True,
        items: tuple[Item, ...] | None = None,
    ) -> Outcomes:
        """items: to be answered instead of the conversation."""
        self._answers.check_room(in_conversation=in_conversation)
        self.items.require_room()
        own = self.config.answers.told_of(options.speaks, options.voice, options.encoding, options.max_answer_tokens)
        return self._answers.open(
            options,
            metadata=metadata,
            in_conversation=in_conversation,
            items=items,
            asked_apart=items is not None or options != own,
        )

    def cancel(self, response_id: str | None) -> Outcomes:
        answer = self._answers.current if response_id is None else self._answers.find(response_id)
        if answer is None:
            raise InvalidInput(
                "Cancellation failed: no active response found"
                + (f" with the id '{response_id[:64]}'." if response_id else "."),
                param="response_id" if response_id else None,
                code="response_cancel_not_active",
            )
        return [ListenerStopped(), *self._stop(answer, "client_cancelled")]

    def answering(self, response_id: str) -> Answer | None:
        """None when it has been stopped meanwhile: what still comes of it is dropped."""
        return self._answers.find(response_id)

    def answer_spoke(self, response_id: str, sample_count: int, data: bytes, heard_by: float) -> Outcomes:
        """heard_by: when a listener who plays what he gets will have heard it."""
        answer = self._answers.find(response_id)
        if answer is None:
            return []
        self.has_spoken = True
        outcomes = answer.spoke(sample_count, data)
        self._playing.spoke(answer.response.output[-1].id, heard_by)
        return outcomes

    def resume(self, response: Response, ids: Sequence[str]) -> Answer:
        """A response that was being given elsewhere; ids: that it made there. Whoever tells it again what it was given
        drops what comes of that: its client knows."""
        return self._answers.resume(response, ids)

    def heard_by(self, response_id: str, moment: float) -> None:
        """When a listener will have heard all that was said to him in a response."""
        answer = self._answers.find(response_id)
        if answer is not None and answer.response.output:
            self._playing.spoke(answer.response.output[-1].id, moment)

    def close_answer(self, response_id: str, end: Callable[[Answer], Outcomes]) -> Outcomes:
        """`end` is the answer's own last word."""
        outcomes = self._close_answer(response_id, end)
        return outcomes if self._answers.current is not None else outcomes + self.beginning()

    # How turns begin and end.

    def _begin_turn(self, fact: TurnBegan, now: float) -> Outcomes:
        self._coming_item_id = self._make_id("item")
        outcomes: Outcomes = [SpeechStarted(fact.at_ms, self._coming_item_id)]
        detection, current = self.config.turn_detection, self._answers.current
        if detection is None or not detection.interrupts_response:
            return outcomes + self.beginning()
        stopped = self._stop(current, "turn_detected") if current is not None else []
        unheard = self._playing.interrupted(self.items, now)
        return [*outcomes, ListenerStopped(), *stopped, *unheard, *self.beginning()]

    def _end_turn(self, fact: TurnDone) -> Outcomes:
        item_id = self._coming_item_id or self._make_id("item")
        self._coming_item_id = item_id
        said: Outcomes = [SpeechStopped(fact.at_ms, item_id)]
        if fact.quiet_since_ms is not None:
            said = [IdleTimeout(fact.quiet_since_ms, fact.at_ms, item_id)]
        outcomes = said + self._commit(fact.pcm16)
        detection = self.config.turn_detection
        if detection is None or not (detection.creates_response or fact.quiet_since_ms is not None):
            return outcomes
        if self._answers.current is not None:
            self.owes_answer = True
            return outcomes
        return outcomes + self._answers.open(self.config.answers, after_speech=fact.quiet_since_ms is None)

    def _foresee(self, pcm16: bytes) -> Outcomes:
        detection = self.config.turn_detection
        if detection is None or not (detection.foresees and detection.creates_response) or self._answers.current:
            return []
        return self._foresight.whole(self.config.answers, self._said(pcm16))

    def beginning(self, pcm16: bytes | None = None) -> Outcomes:
        """Of the next prompt, as far as it is known. pcm16: what the user has said of his turn."""
        return self._foresight.beginning(self.config.answers, None if pcm16 is None else self._said(pcm16))

    def _said(self, pcm16: bytes) -> UserItem:
        """The user's turn, if this is all of it."""
        return UserItem(self._coming_item_id or "coming", (InputSound(pcm16, self.ears.buffer.encoding),))

    def _commit(self, pcm16: bytes) -> Outcomes:
        item_id, self._coming_item_id = self._coming_item_id or self._make_id("item"), None
        sound = InputSound(pcm16, self.ears.buffer.encoding)
        item = UserItem(item_id, (sound,))
        outcomes = self._make_room(len(pcm16))
        previous_id = self.items.append(item)
        outcomes += [
            BufferCommitted(item_id, previous_id),
            ItemAdded(item, previous_id),
            ItemDone(item, previous_id),
        ]
        if self.config.transcribes:
            outcomes.append(Transcribe(item_id, 0, sound))
        return outcomes

    def _make_room(self, new_bytes: int) -> Outcomes:
        """Who speaks is heard, also in a full conversation: what is oldest is forgotten."""
        forgotten: Outcomes = []
        while len(self.items) and not self.items.has_room(new_bytes):
            oldest = next(iter(self.items)).id
            self.items.delete(oldest)
            forgotten.append(ItemDeleted(oldest))
        return forgotten

    def _stop(self, answer: Answer, reason: StopReason) -> Outcomes:
        response_id = answer.response.id
        return [StopAnswer(response_id), *self._close_answer(response_id, lambda a: a.stopped(reason))]

    def _close_answer(self, response_id: str, end: Callable[[Answer], Outcomes]) -> Outcomes:
        outcomes = self._answers.close(response_id, end)
        if self.owes_answer and self._answers.current is None:
            self.owes_answer = False
            outcomes += self._answers.open(self.config.answers, after_speech=True)
        return outcomes

    def _item(self, item_id: str, verb: str) -> Item:
        item = self.items.find(item_id)
        if item is None:
            raise InvalidInput(
                f"Error: the item with the id '{item_id[:64]}' does not exist.",
                param="item_id",
                code=f"item_{verb}_invalid_item_id",
            )
        return item
