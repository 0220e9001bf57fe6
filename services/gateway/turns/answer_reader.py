"""From an answer's token ids to what the client is told, and which of them are spoken: text before any call only."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antiphon.prompt.detokenizer import TokenBytes
from antiphon.prompt.stop_matcher import Released, StopMatcher
from services.gateway.turns.answer_parts import AnswerForm, AnswerParts, Piece, PieceKind
from services.gateway.turns.request import ReasoningDelta, TextDelta, ToolCallDelta

Told = TextDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class Heard:
    """What became certain with the last token."""

    told: tuple[Told, ...]
    # Those that may be spoken, oldest first.
    spoken_ids: tuple[int, ...]
    # The answer ends here: by a stop, or after its last call, whatever the model would still write.
    is_cut: bool = False
    # Nothing that follows is spoken.
    is_silent: bool = False


class AnswerReader:
    def __init__(
        self, vocabulary: TokenBytes, stops: Sequence[str], form: AnswerForm, *, most_calls: int | None = None
    ) -> None:
        """most_calls: after so many of them the answer is over."""
        self._matcher = StopMatcher(vocabulary, stops)
        self._parts = None if form.is_plain else AnswerParts(form)
        self._most_calls = most_calls
        self._tokens = _TokenKinds()
        self._calls = 0
        self.reasoning_tokens = 0

    @property
    def has_calls(self) -> bool:
        return self._calls > 0

    def push(self, token_id: int, *, is_last: bool) -> Heard:
        released = [self._matcher.push(token_id)]
        if is_last and not released[0].stopped:
            released.append(self._matcher.finish())
        is_stopped = released[-1].stopped
        if self._parts is None:
            return _plain(released, is_stopped=is_stopped)
        pieces = [piece for each in released for piece in self._parts.push(each.text)]
        if is_last or is_stopped:
            pieces += self._parts.finish()
        for each in released:
            self._tokens.add_tokens(each)
        kinds = self._tokens.settle(pieces)
        self.reasoning_tokens += sum(kind == "reasoning" for _, kind in kinds)
        return Heard(
            tuple(self._told(pieces)),
            tuple(token_id for token_id, kind in kinds if kind == "content"),
            is_cut=is_stopped or self._parts.calls == self._most_calls,
            is_silent=self.has_calls,
        )

    def _told(self, pieces: Iterable[Piece]) -> Iterable[Told]:
        for kind, text, _ in pieces:
            if kind == "call":
                self._calls += 1
                yield ToolCallDelta(self._calls - 1, name=text)
            elif text and kind == "arguments":
                yield ToolCallDelta(self._calls - 1, arguments=text)
            elif text and kind == "reasoning":
                yield ReasoningDelta(text)
            elif text and kind in ("content", "unspoken"):
                yield TextDelta(text)


class _TokenKinds:
    """What each token is of: that of its characters; of several kinds it is never content."""

    def __init__(self) -> None:
        # (id, characters of the answer up to its end)
        self._waiting: deque[tuple[int, int]] = deque()
        # (kind, characters up to its end)
        self._kinds: deque[tuple[PieceKind, int]] = deque()
        # Characters settled, and those up to the last token that was given.
        self._settled = self._told = 0

    def add_tokens(self, released: Released) -> None:
        self._waiting.extend(zip(released.token_ids, released.token_ends, strict=True))

    def settle(self, pieces: Iterable[Piece]) -> list[tuple[int, PieceKind]]:
        """Tokens all of whose characters are known by now, oldest first."""
        for piece in pieces:
            if piece.length:
                self._settled += piece.length
                self._kinds.append((piece.kind, self._settled))
        found: list[tuple[int, PieceKind]] = []
        while self._waiting and self._waiting[0][1] <= self._settled:
            token_id, end = self._waiting.popleft()
            found.append((token_id, self._kind_until(end)))
        return found

    def _kind_until(self, end: int) -> PieceKind:
        """Of the characters since the token before it; without any, that of the text it stands behind."""
        if end == self._told:
            return self._kinds[0][0] if self._kinds else "content"
        while self._kinds[0][1] <= self._told:
            self._kinds.popleft()
        kind = self._kinds[0][0]
        while self._kinds[0][1] < end:
            self._kinds.popleft()
            kind = self._kinds[0][0] if kind == "content" else kind
        self._told = end
        return kind


def _plain(released: Iterable[Released], *, is_stopped: bool) -> Heard:
    """Of an answer that holds nothing but text."""
    text = "".join(each.text for each in released)
    spoken = tuple(token_id for each in released for token_id in each.token_ids)
    return Heard((TextDelta(text),) if text else (), spoken, is_stopped)
