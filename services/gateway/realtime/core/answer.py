"""One response while it is given: what comes from the model becomes items and the events about them, in their order."""

from collections.abc import Callable
from dataclasses import replace

from services.gateway.realtime.core.alignment import Aligner
from services.gateway.realtime.core.items import (
    AssistantItem,
    CallItem,
    Item,
    ItemList,
    OutputPart,
    OutputSpeech,
    OutputText,
    Status,
)
from services.gateway.realtime.core.outcomes import (
    ArgumentsDone,
    ArgumentsPiece,
    ItemAdded,
    ItemDone,
    Outcomes,
    OutputAdded,
    OutputDone,
    PartAdded,
    PartDone,
    Place,
    ResponseDone,
    SoundDone,
    SoundPiece,
    TextDone,
    TextPiece,
)
from services.gateway.realtime.core.response import Failure, Response, ResponseStatus, StatusReason, StopReason, Usage

MakeId = Callable[[str], str]


class Answer:
    """`items` is the conversation; nothing of an answer beside it goes there. Nothing follows an end."""

    def __init__(self, response: Response, items: ItemList, make_id: MakeId, samples_per_letter: float) -> None:
        self.response, self._items, self._make_id = response, items, make_id
        # What it has taken so far; None before the turn is opened.
        self.used: Usage | None = None
        # Tells it at the end, whenever that comes.
        self.count_used: Callable[[], Usage] | None = None
        self._expected_samples_per_letter = samples_per_letter
        # Of the message that is being said or written, or was last.
        self._aligner = Aligner(samples_per_letter)
        # The message that is being said or written.
        self._message_id: str | None = None
        # That a resampler still holds.
        self._untold_samples = 0
        self._call: CallItem | None = None
        self._arguments: list[str] = []

    @property
    def samples_per_letter(self) -> float:
        """Of this answer once it is whole, for those that come after it."""
        return self._aligner.samples_per_letter(is_whole=self.response.status == "completed")

    def said(self, text: str) -> Outcomes:
        outcomes = self._open_message()
        self._aligner.text(text)
        return [*outcomes, TextPiece(self._place, text, self._speaks)]

    def spoke(self, sample_count: int, data: bytes) -> Outcomes:
        """sample_count: at 24 kHz; data: the same in the response's encoding."""
        outcomes = self._open_message()
        self._aligner.sound(sample_count)
        self._untold_samples += sample_count
        if data:
            outcomes.append(SoundPiece(self._place, data, self._untold_samples))
            self._untold_samples = 0
        return outcomes

    def called(self, name: str) -> Outcomes:
        """A call of a tool begins; whatever was open before it is whole."""
        outcomes = self._close("completed")
        self._call = CallItem(self._make_id("item"), self._make_id("call"), name, "", "in_progress")
        self._arguments = []
        return outcomes + self._add(self._call)

    def argued(self, text: str) -> Outcomes:
        """More of the arguments of the call that has begun."""
        if self._call is None:
            raise AssertionError("arguments follow a call's name")
        self._arguments.append(text)
        return [ArgumentsPiece(self._place_of(self._call), self._call.call_id, text)]

    def ended(self, *, is_cut: bool) -> Outcomes:
        """is_cut: by its bound of tokens."""
        return self._end("incomplete", "max_output_tokens") if is_cut else self._end("completed", None)

    def stopped(self, reason: StopReason) -> Outcomes:
        return self._end("cancelled", reason)

    def failed(self, failure: Failure) -> Outcomes:
        return self._end("failed", None, failure=failure)

    def unfinished(self) -> Item | None:
        """What is being said or called, if it ended now."""
        if self._message_id is not None:
            return AssistantItem(self._message_id, (self._part(is_whole=False),), "incomplete")
        if self._call is not None:
            return replace(self._call, arguments="".join(self._arguments), status="incomplete")
        return None

    @property
    def _speaks(self) -> bool:
        return self.response.options.speaks

    @property
    def _place(self) -> Place:
        return Place(self.response.id, self._message_id or "", len(self.response.output) - 1)

    def _open_message(self) -> Outcomes:
        if self._message_id is not None:
            return []
        outcomes = self._close("completed")
        self._message_id = self._make_id("item")
        self._aligner = Aligner(self._expected_samples_per_letter)
        outcomes += self._add(AssistantItem(self._message_id, (), "in_progress"))
        return [*outcomes, PartAdded(self._place, OutputSpeech("") if self._speaks else OutputText(""))]

    def _usage(self) -> Usage | None:
        return self.count_used() if self.count_used is not None else self.used

    def _close(self, status: Status) -> Outcomes:
        return self._close_message(status) if self._message_id is not None else self._close_call(status)

    def _close_call(self, status: Status) -> Outcomes:
        """A call that was cut off is told as far as it came, and not as done."""
        if self._call is None:
            return []
        call, self._call = self._call, None
        whole = replace(call, arguments="".join(self._arguments), status=status)
        done: Outcomes = []
        if status == "completed":
            done.append(ArgumentsDone(self._place_of(whole), whole.call_id, whole.name, whole.arguments))
        return done + self._finish(whole)

    def _place_of(self, item: Item) -> Place:
        return Place(self.response.id, item.id, len(self.response.output) - 1)

    def _close_message(self, status: Status) -> Outcomes:
        if self._message_id is None:
            return []
        part, place = self._part(is_whole=status == "completed"), self._place
        outcomes: Outcomes = [SoundDone(place)] if self._speaks else []
        outcomes += [TextDone(place, self._aligner.transcript, self._speaks), PartDone(place, part)]
        outcomes += self._finish(AssistantItem(self._message_id, (part,), status))
        self._message_id = None
        return outcomes

    def _part(self, *, is_whole: bool) -> OutputPart:
        aligner = self._aligner
        if not self._speaks:
            return OutputText(aligner.transcript)
        return OutputSpeech(aligner.transcript, aligner.sample_count, aligner.alignment(is_whole=is_whole))

    def _add(self, item: Item) -> Outcomes:
        self.response = replace(self.response, output=(*self.response.output, item))
        outcomes: Outcomes = [OutputAdded(self.response.id, len(self.response.output) - 1, item)]
        if self.response.in_conversation:
            is_there = self._items.find(item.id) is not None
            previous_id = self._items.previous_id(item.id) if is_there else self._items.append(item)
            outcomes.append(ItemAdded(item, previous_id))
        return outcomes

    def _finish(self, item: Item) -> Outcomes:
        self.response = replace(self.response, output=(*self.response.output[:-1], item))
        outcomes: Outcomes = []
        if self.response.in_conversation and self._items.find(item.id) is not None:
            self._items.replace(item)
            outcomes.append(ItemDone(item, self._items.previous_id(item.id)))
        return [*outcomes, OutputDone(self.response.id, len(self.response.output) - 1, item)]

    def _end(self, status: ResponseStatus, reason: StatusReason | None, *, failure: Failure | None = None) -> Outcomes:
        outcomes = self._close("completed" if status == "completed" else "incomplete")
        self.response = replace(self.response, status=status, reason=reason, failure=failure, usage=self._usage())
        return [*outcomes, ResponseDone(self.response)]
