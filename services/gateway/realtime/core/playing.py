"""How far a listener can be who plays what he gets as it comes: what he had not heard of it when he began to speak is
left out of the conversation."""

from collections import OrderedDict
from dataclasses import replace
from typing import Final

from services.gateway.realtime.core.answer import Answer
from services.gateway.realtime.core.items import (
    SAMPLE_RATES_HZ,
    AssistantItem,
    Item,
    ItemList,
    OutputPart,
    OutputSpeech,
)
from services.gateway.realtime.core.outcomes import ItemTruncated, Outcomes

_OUTPUT_RATE_HZ: Final = SAMPLE_RATES_HZ["pcm"]
# What is older has been heard: sound is handed out a few seconds ahead.
_MOST_ITEMS: Final = 64


class Playing:
    def __init__(self) -> None:
        # By item, oldest first: when all of it that was handed out will have been heard.
        self._heard_by: OrderedDict[str, float] = OrderedDict()

    def spoke(self, item_id: str, heard_by: float) -> None:
        self._heard_by[item_id] = heard_by
        if len(self._heard_by) > _MOST_ITEMS:
            self._heard_by.popitem(last=False)

    def interrupted(self, items: ItemList, now: float) -> Outcomes:
        """Nothing more is played: items keep what can have been heard by now."""
        unheard = {item_id: heard_by - now for item_id, heard_by in self._heard_by.items() if heard_by > now}
        self._heard_by.clear()
        outcomes: Outcomes = []
        for item_id, seconds in unheard.items():
            item = items.find(item_id)
            if isinstance(item, AssistantItem):
                cut = _without_last(item, seconds)
                items.replace(cut)
                outcomes += [
                    ItemTruncated(item_id, index, part.heard_ms)
                    for index, part in enumerate(cut.parts)
                    if isinstance(part, OutputSpeech)
                ]
        return outcomes

    def standing(self, items: ItemList, current: Answer | None, now: float) -> list[Item]:
        """What `items` would be if the answer that is being given ended now, with what can have been heard of it."""
        unfinished = current.unfinished() if current is not None else None
        if unfinished is None:
            return list(items)
        if isinstance(unfinished, AssistantItem):
            unfinished = _without_last(unfinished, max(0.0, self._heard_by.get(unfinished.id, now) - now))
        return [unfinished if item.id == unfinished.id else item for item in items]


def _without_last(item: AssistantItem, seconds: float) -> AssistantItem:
    return replace(item, parts=tuple(_cut(part, seconds) for part in item.parts))


def _cut(part: OutputPart, seconds: float) -> OutputPart:
    """A client may know of more than can have been heard here, but of no more than was sent."""
    if not isinstance(part, OutputSpeech):
        return part
    sent_count = part.sample_count if part.sent_count is None else part.sent_count
    return replace(part.heard(part.sample_count - round(seconds * _OUTPUT_RATE_HZ)), sent_count=sent_count)
