"""What a session will probably be asked next, told before it is, so that it can be computed before it is."""

from services.gateway.realtime.core.items import Item, ItemList, UserItem
from services.gateway.realtime.core.outcomes import AnswerComing, AnswerForeseen, NothingForeseen, Outcomes
from services.gateway.realtime.core.response import AnswerOptions


class Foresight:
    def __init__(self, items: ItemList, *, tells_beginnings: bool) -> None:
        self._items, self._tells_beginnings = items, tells_beginnings
        self._has_foreseen = False

    def beginning(self, options: AnswerOptions, sound: UserItem | None = None) -> Outcomes:
        """Of the next prompt, as far as it is known. sound: what the user has said of his turn."""
        items: tuple[Item, ...] = (*self._items, sound) if sound is not None else tuple(self._items)
        is_known = items or options.instructions or options.tools
        return [AnswerComing(options, items)] if self._tells_beginnings and is_known else []

    def whole(self, options: AnswerOptions, said: UserItem) -> Outcomes:
        self._has_foreseen = True
        return [AnswerForeseen(options, (*self._items, said))]

    def nothing(self) -> Outcomes:
        had, self._has_foreseen = self._has_foreseen, False
        return [NothingForeseen()] if had else []
