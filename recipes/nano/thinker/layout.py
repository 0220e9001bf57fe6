"""A conversation as the Thinker reads it: ids, their places in time and space, and which of them it is to learn.

Written as the chat template writes it; an answer ends with the token that ends the turn, which is learnt, too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.placeholders import PlacedMedium
from antiphon.prompt.positions import PositionRules, thinker_positions
from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.domain import films, pictures
from recipes.nano.domain.conversations import Conversation, Film, Part, Picture, Recording, Sound, Text, Turn
from recipes.nano.model.vision_tower import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE
from recipes.nano.thinker.media import Audible, Medium

FRAMES_PER_SECOND = 1000 / films.FRAME_MILLISECONDS
_TOKEN_PIXELS = PATCH_SIZE * MERGE_SIZE
PICTURE_TOKENS = (pictures.SIDE_PIXELS // _TOKEN_PIXELS) ** 2
FILM_TOKENS = films.FRAMES // TEMPORAL_PATCH_SIZE * (films.SIDE_PIXELS // _TOKEN_PIXELS) ** 2

SoundTokens = Callable[[Audible], int]


@dataclass(frozen=True)
class Laid:
    """ids int64 (tokens), learnt bool (tokens), positions float32 (3, tokens); placed: media in order, each with where
    its first token stands; last_answer: index of the first token of the last answer (or of the thought before it)."""

    ids: NDArray[np.int64]
    learnt: NDArray[np.bool_]
    positions: NDArray[np.float32]
    placed: tuple[tuple[Medium, PlacedMedium], ...]
    last_answer: int


class ThinkerLayout:
    """`sound_tokens` tells how many rows the audio encoder gives for a sound."""

    def __init__(self, tokenizer: PromptTokenizer, rules: PositionRules, sound_tokens: SoundTokens) -> None:
        self._rules, self._sound_tokens = rules, sound_tokens
        self._words = _Words(tokenizer)

    def lay_out(self, conversation: Conversation, film_frames_per_second: float = FRAMES_PER_SECOND) -> Laid:
        page = _Page(self._words)
        if conversation.system:
            page.system(conversation.system)
        for number, turn in enumerate(conversation.turns):
            self._ask(page, turn, film_frames_per_second)
            is_last = number == len(conversation.turns) - 1
            page.answer(turn.answer, conversation.thought if is_last else None)
            if not is_last:
                page.write("\n")
        return self._laid(page)

    def _ask(self, page: "_Page", turn: Turn, frames_per_second: float) -> None:
        page.control("<|im_start|>")
        page.write("user\n")
        for part in turn.parts:
            if isinstance(part, Text):
                page.write(part.text)
            else:
                page.medium(part, self._layout(part, len(page.placed), frames_per_second))
        page.control("<|im_end|>")
        page.write("\n")

    def _layout(self, medium: Medium, index: int, frames_per_second: float) -> MediaLayout:
        match medium:
            case Recording() | Sound():
                return MediaLayout(index, "audio", self._sound_tokens(medium))
            case Picture():
                side = pictures.SIDE_PIXELS // PATCH_SIZE
                return MediaLayout(index, "image", PICTURE_TOKENS, 1, side, side)
            case Film():
                side, times = films.SIDE_PIXELS // PATCH_SIZE, films.FRAMES // TEMPORAL_PATCH_SIZE
                seconds = TEMPORAL_PATCH_SIZE / frames_per_second
                return MediaLayout(index, "video", FILM_TOKENS, times, side, side, seconds)

    def _laid(self, page: "_Page") -> Laid:
        media = [placed for _, placed in page.placed]
        return Laid(
            ids=np.array(page.ids, np.int64),
            learnt=np.array(page.learnt, bool),
            positions=thinker_positions(len(page.ids), media, self._rules),
            placed=tuple(page.placed),
            last_answer=page.last_answer,
        )


class _Words:
    """The tokenizer, remembering: most of what is written is written often."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.control = tokenizer.control_id
        self._encode = tokenizer.encode_plain
        self._known: dict[str, list[int]] = {}

    def plain(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._encode(text)
        return self._known[text]


_MARKERS = {"audio": "audio", "image": "vision", "video": "vision"}


class _Page:
    """Filled from left to right."""

    def __init__(self, words: _Words) -> None:
        self._words = words
        self.ids: list[int] = []
        self.learnt: list[bool] = []
        self.placed: list[tuple[Medium, PlacedMedium]] = []
        self.last_answer = 0

    def control(self, name: str, *, learnt: bool = False) -> None:
        self._append([self._words.control(name)], learnt=learnt)

    def write(self, text: str, *, learnt: bool = False) -> None:
        self._append(self._words.plain(text), learnt=learnt)

    def system(self, text: str) -> None:
        self.control("<|im_start|>")
        self.write(f"system\n{text}")
        self.control("<|im_end|>")
        self.write("\n")

    def medium(self, medium: Medium, layout: MediaLayout) -> None:
        marker = _MARKERS[layout.modality]
        self.control(f"<|{marker}_start|>")
        self.placed.append((medium, PlacedMedium(layout, len(self.ids))))
        self._append([self._words.control(f"<|{layout.modality}_pad|>")] * layout.token_count)
        self.control(f"<|{marker}_end|>")

    def answer(self, text: str, thought: str | None) -> None:
        """Where thinking is switched on or off, the prompt opens the tags; where it is off, it closes them, too."""
        self.control("<|im_start|>")
        self.write("assistant\n")
        if thought is not None:
            self.control("<think>")
            self.write("\n" if thought else "\n\n")
        if thought == "":
            self.control("</think>")
            self.write("\n\n")
        self.last_answer = len(self.ids)
        if thought:
            self.write(f"{thought}\n", learnt=True)
            self.control("</think>", learnt=True)
            self.write("\n\n", learnt=True)
        self.write(text, learnt=True)
        self.control("<|im_end|>", learnt=True)

    def _append(self, ids: list[int], *, learnt: bool = False) -> None:
        self.ids += ids
        self.learnt += [learnt] * len(ids)


def media_of(conversation: Conversation) -> list[Medium]:
    """In the order of the prompt."""
    parts: list[Part] = [part for turn in conversation.turns for part in turn.parts]
    return [part for part in parts if not isinstance(part, Text)]
