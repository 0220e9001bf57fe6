"""The responses that are being given: one of the conversation at most, and some beside it."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.alignment import DEFAULT_SAMPLES_PER_LETTER
from services.gateway.realtime.core.answer import Answer, MakeId
from services.gateway.realtime.core.items import Item, ItemList
from services.gateway.realtime.core.outcomes import Outcomes, ResponseCreated, StartAnswer
from services.gateway.realtime.core.response import AnswerOptions, Response


class Answers:
    def __init__(self, items: ItemList, make_id: MakeId, most_beside: int) -> None:
        self._items, self._make_id, self._most_beside = items, make_id, most_beside
        self._open: dict[str, Answer] = {}
        self._samples_per_letter = DEFAULT_SAMPLES_PER_LETTER

    @property
    def current(self) -> Answer | None:
        """The one that the conversation gets."""
        return next((answer for answer in self._open.values() if answer.response.in_conversation), None)

    def find(self, response_id: str) -> Answer | None:
        return self._open.get(response_id)

    def check_room(self, *, in_conversation: bool) -> None:
        current = self.current
        if in_conversation and current is not None:
            raise InvalidInput(
                f"Conversation already has an active response in progress: {current.response.id}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        if not in_conversation and len(self._open) - (current is not None) >= self._most_beside:
            raise InvalidInput(
                f"At most {self._most_beside} responses beside the conversation may be in progress.",
                code="too_many_responses",
            )

    def open(
        self,
        options: AnswerOptions,
        *,
        metadata: Mapping[str, str] | None = None,
        in_conversation: bool = True,
        items: tuple[Item, ...] | None = None,
        after_speech: bool = False,
        asked_apart: bool = False,
    ) -> Outcomes:
        response = Response(self._make_id("resp"), options, in_conversation, metadata, is_asked_apart=asked_apart)
        self._open[response.id] = Answer(response, self._items, self._make_id, self._samples_per_letter)
        asked = tuple(self._items) if items is None else items
        return [ResponseCreated(response), StartAnswer(response, asked, after_speech)]

    def resume(self, response: Response, ids: Sequence[str]) -> Answer:
        """One that was opened elsewhere. ids: that it made there, in their order."""
        left = deque(ids)

        def make_id(prefix: str) -> str:
            return left.popleft() if left else self._make_id(prefix)

        answer = Answer(response, self._items, make_id, self._samples_per_letter)
        self._open[response.id] = answer
        return answer

    def close(self, response_id: str, end: Callable[[Answer], Outcomes]) -> Outcomes:
        answer = self._open.pop(response_id, None)
        if answer is None:
            return []
        outcomes = end(answer)
        self._samples_per_letter = answer.samples_per_letter
        return outcomes
