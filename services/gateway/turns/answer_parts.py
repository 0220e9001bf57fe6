"""An answer's text as it comes, split into what is said, what is thought and what is called.

Qwen's models think between <think> and </think> at the beginning, and call a function by <tool_call>, a JSON object of
its name and arguments, </tool_call>. Whatever is no such call after all is content, and nothing is lost. The pieces
add up to the same however the text was cut.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

THINK: Final = "<think>"
THOUGHT: Final = "</think>"
TOOL_CALL: Final = "<tool_call>"
CALLED: Final = "</tool_call>"
_HEAD: Final = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')

# content: said. unspoken: said, but never aloud. call: its text is the function's name. arguments: of the call before.
# dropped: markers, and the space around them.
PieceKind = Literal["content", "unspoken", "reasoning", "call", "arguments", "dropped"]


class Piece(NamedTuple):
    kind: PieceKind
    text: str
    # Characters of the answer that it stands for.
    length: int


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What an answer may hold beside plain text."""

    # Whether it may begin with <think>, and whether the prompt has opened that already.
    thinks: bool = False
    is_thinking: bool = False
    # Functions that may be called; any other name is no call.
    tools: frozenset[str] = frozenset()

    @property
    def is_plain(self) -> bool:
        return not (self.thinks or self.is_thinking or self.tools)


PLAIN: Final = AnswerForm()


class AnswerParts:
    def __init__(self, form: AnswerForm) -> None:
        self._tools = form.tools
        opening = self._opening if form.thinks else self._content
        self._state = self._reasoning if form.is_thinking else opening
        self._held = ""
        self._pieces: list[Piece] = []
        self._drops_space = form.is_thinking
        self._said: PieceKind = "content"
        self._nesting = _Nesting()
        self._is_over = False
        # Calls whose end has been seen.
        self.calls = 0

    def push(self, text: str) -> list[Piece]:
        self._held += text
        return self._run()

    def finish(self) -> list[Piece]:
        """The answer has ended: what was held back is told."""
        self._is_over = True
        pieces = self._run()
        if self._held:
            raise AssertionError(f"{len(self._held)} characters of an answer were left over")
        return pieces

    def _run(self) -> list[Piece]:
        self._pieces = []
        while self._held and self._state():
            pass
        return self._pieces

    def _opening(self) -> bool:
        """Before it is known whether it thinks."""
        begun = self._held.lstrip()
        if begun.startswith(THINK):
            self._take("reasoning", len(self._held) - len(begun) + len(THINK), "")
            self._state, self._drops_space = self._reasoning, True
        elif self._is_over or not THINK.startswith(begun):
            self._state = self._content
        else:
            return False
        return True

    def _reasoning(self) -> bool:
        if not self._text_until(THOUGHT, "reasoning"):
            return False
        self._take("reasoning", len(THOUGHT), "")
        self._state, self._drops_space = self._content, True
        return True

    def _content(self) -> bool:
        if not self._text_until(TOOL_CALL if self._tools else "", self._said):
            return False
        self._state = self._call
        return True

    def _text_until(self, marker: str, kind: PieceKind) -> bool:
        """True when the marker begins what is held; space around it is no text."""
        if self._drops_space:
            self._take("dropped", len(self._held) - len(self._held.lstrip()), "")
            self._drops_space = not self._held
        place = self._held.find(marker) if marker else -1
        if place >= 0:
            said = self._held[:place].rstrip()
            self._take(kind, len(said))
            self._take("dropped", place - len(said), "")
            return True
        kept = 0 if self._is_over or not marker else _undecided(self._held, marker)
        self._take(kind, len(self._held) - kept)
        return False

    def _call(self) -> bool:
        """After <tool_call>, until the arguments begin, or it is known to be no such call."""
        end = self._held.find(CALLED)
        head = _HEAD.match(self._held[: end if end >= 0 else None], len(TOOL_CALL))
        if head is not None and (name := _string(head[1])) in self._tools:
            self._take("call", head.end(), name)
            self._nesting = _Nesting()
            self._state, self._said = self._arguments, "unspoken"
            return True
        if end < 0 and not self._is_over:
            return False
        self._whole_call(end if end >= 0 else len(self._held))
        self._state, self._said = self._content, "unspoken"
        return True

    def _whole_call(self, end: int) -> None:
        """In another order, or none at all."""
        length = min(end + len(CALLED), len(self._held))
        name, arguments = _read_call(self._held[len(TOOL_CALL) : end])
        if name in self._tools:
            self._take("call", length, name)
            self._pieces.append(Piece("arguments", arguments, 0))
            self.calls += 1
            self._drops_space = True
        else:
            self._take("unspoken", length)

    def _arguments(self) -> bool:
        length = self._nesting.read(self._held)
        self._take("arguments", length)
        if self._nesting.depth == 0:
            self._state = self._call_end
        return bool(self._held)

    def _call_end(self) -> bool:
        """The brace and the marker; where anything else follows, that is content."""
        closed = self._held.lstrip()
        rest = closed[1:].lstrip() if closed.startswith("}") else "" if not closed else None
        is_marked = rest is not None and rest.startswith(CALLED)
        if not is_marked and not self._is_over and rest is not None and CALLED.startswith(rest):
            return False
        if rest is not None and (is_marked or CALLED.startswith(rest)):
            after = len(rest) - len(CALLED) if is_marked else 0
            self._take("dropped", len(self._held) - after, "")
        self.calls += 1
        self._state, self._drops_space = self._content, True
        return True

    def _take(self, kind: PieceKind, length: int, text: str | None = None) -> None:
        if length:
            taken, self._held = self._held[:length], self._held[length:]
            self._pieces.append(Piece(kind, taken if text is None else text, length))


class _Nesting:
    """How deep a JSON object is open, by its braces and brackets outside strings."""

    def __init__(self) -> None:
        self.depth = 0
        self._is_string = self._is_escaped = False

    def read(self, text: str) -> int:
        """Characters of the text up to the object's end, or all."""
        for place, character in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_string:
                self._is_escaped = character == "\\"
                self._is_string = character != '"'
            elif character == '"':
                self._is_string = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth == 0:
                    return place + 1
        return len(text)


def _undecided(text: str, marker: str) -> int:
    """Characters at the end that may be the marker's beginning, or the space before it."""
    longest = min(len(text), len(marker) - 1)
    begun = next((n for n in range(longest, 0, -1) if marker.startswith(text[-n:])), 0)
    before = text[: len(text) - begun]
    return begun + len(before) - len(before.rstrip())


def _string(written: str) -> str:
    try:
        return str(json.loads(written))
    except ValueError:
        return ""


def _read_call(text: str) -> tuple[str, str]:
    """Its name and its arguments as JSON; no name where it is none."""
    try:
        call: object = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    match call:
        case {"name": str(name), "arguments": dict(arguments)}:
            return name, json.dumps(arguments, ensure_ascii=False)
    return "", ""
