"""From a conversation to a prompt: ids with every placeholder expanded, and 3-D positions, for Thinker and Talker."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import CheckpointError, ContextTooLong
from antiphon.prompt.checkpoint_config import PromptConfig
from antiphon.prompt.conversation import Conversation
from antiphon.prompt.detokenizer import TokenBytes
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.placeholders import ExpandedPrompt, PlacedMedium, checked_layouts, expand
from antiphon.prompt.positions import PositionRules, next_position, talker_positions, thinker_positions
from antiphon.prompt.special_tokens import SpecialTokens
from antiphon.prompt.template import ChatTemplate
from antiphon.prompt.tokenizer import PromptTokenizer

# Ids that open the assistant's turn ("<|im_start|>assistant\n"), which the Talker reads apart from the text.
ASSISTANT_PREFIX_IDS = 3
# Rows that follow the user turns in the Talker's prompt.
TALKER_ASSISTANT_ROWS = 9


@dataclass(frozen=True, slots=True)
class PositionedTokens:
    token_ids: tuple[int, ...]
    # float32 (3, tokens): time, height, width.
    positions: NDArray[np.float32]
    # Of the first token that follows, the same on all three axes.
    next_position: float


@dataclass(frozen=True, slots=True)
class TokenCounts:
    text: int
    audio: int
    image: int
    video: int

    @property
    def total(self) -> int:
        return self.text + self.audio + self.image + self.video


@dataclass(frozen=True, slots=True)
class BuiltPrompt:
    thinker: PositionedTokens
    # The user turns; its positions cover nine rows more, the assistant's.
    talker: PositionedTokens
    # The ids that open the assistant's turn, as the Talker reads them.
    assistant_prefix_ids: tuple[int, ...]
    # What the template adds behind them when thinking is switched; a spoken answer must have none.
    assistant_extra_ids: tuple[int, ...]
    counts: TokenCounts


class PromptBuilder:
    """The prompt side of one checkpoint. Holds no state of any request: one serves all, from any thread."""

    def __init__(self, checkpoint: Path) -> None:
        """Raises CheckpointError naming what the directory lacks."""
        self._config = PromptConfig.from_checkpoint(checkpoint)
        self._tokenizer = PromptTokenizer.from_checkpoint(checkpoint)
        self._template = ChatTemplate.from_checkpoint(checkpoint)
        self._rules = PositionRules(self._config.position_id_per_seconds, self._config.merge_size)
        self.special_tokens = SpecialTokens.from_checkpoint(self._config, self._tokenizer)
        self.token_bytes = TokenBytes(self._tokenizer)

    @property
    def control_tokens(self) -> Container[str]:
        """By name."""
        return self._tokenizer.control.id_of

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may take together."""
        return self._config.context_length

    def text_ids(self, text: str) -> list[int]:
        """Of a text as an answer would hold it: whatever it says, no control token is among them."""
        return self._tokenizer.encode_plain(text)

    def build(
        self, conversation: Conversation, layouts: Sequence[MediaLayout] = (), *, answer_tokens: int = 1
    ) -> BuiltPrompt:
        """Raises ContextTooLong when the prompt and `answer_tokens` do not fit, InvalidInput when the conversation
        cannot be told in the checkpoint's template. `layouts` are those of `conversation.media`, in any order."""
        ordered = checked_layouts(conversation.media, layouts, self._config.merge_size)
        ids = self._template.ids(conversation, self._tokenizer)
        self._refuse_too_long(len(ids) + sum(_placeholders(layout) - 1 for layout in ordered), answer_tokens)
        expanded = expand(ids, ordered, self.special_tokens, self._config)
        positions = thinker_positions(len(expanded.ids), expanded.media, self._rules)
        opening = self._assistant_opening(expanded.ids)
        return BuiltPrompt(
            thinker=PositionedTokens(tuple(expanded.ids), positions, next_position(positions)),
            talker=self._talker(expanded),
            assistant_prefix_ids=opening[:ASSISTANT_PREFIX_IDS],
            assistant_extra_ids=opening[ASSISTANT_PREFIX_IDS:],
            counts=_counts(len(expanded.ids), ordered),
        )

    def _refuse_too_long(self, prompt_tokens: int, answer_tokens: int) -> None:
        if prompt_tokens + answer_tokens > self.context_length:
            raise ContextTooLong(
                f"This model's context holds {self.context_length} tokens; the messages take {prompt_tokens} and the "
                f"answer may take {answer_tokens}. Shorten the messages or the answer.",
                param="messages",
            )

    def _talker(self, expanded: ExpandedPrompt) -> PositionedTokens:
        kept = self._user_turns(expanded.ids)
        # Index in the Talker's prompt of each kept token.
        moved = np.cumsum(kept) - 1
        media = [PlacedMedium(medium.layout, int(moved[medium.first])) for medium in expanded.media]
        ids = tuple(np.asarray(expanded.ids)[kept].tolist())
        positions = talker_positions(len(ids) + TALKER_ASSISTANT_ROWS, media, self._rules)
        return PositionedTokens(ids, positions, next_position(positions))

    def _user_turns(self, ids: list[int]) -> NDArray[np.bool_]:
        kept = np.zeros(len(ids), dtype=bool)
        for start, stop in pairwise([*self._turn_starts(ids), len(ids)]):
            kept[start:stop] = ids[start + 1] == self.special_tokens.user
        return kept

    def _assistant_opening(self, ids: list[int]) -> tuple[int, ...]:
        starts = self._turn_starts(ids)
        opening = tuple(ids[starts[-1] :]) if starts else ()
        if len(opening) < ASSISTANT_PREFIX_IDS or opening[1] != self.special_tokens.assistant:
            raise CheckpointError(
                f"{self._config.file.parent}: expected its chat template to end with the {ASSISTANT_PREFIX_IDS} ids "
                f"that open the assistant's turn; it ends with {opening}."
            )
        return opening

    def _turn_starts(self, ids: list[int]) -> list[int]:
        return [index for index, token_id in enumerate(ids[:-1]) if token_id == self.special_tokens.im_start]


def _placeholders(layout: MediaLayout) -> int:
    markers_of_track = 2 if layout.modality == "video" and layout.audio_token_count else 0
    return layout.token_count + layout.audio_token_count + markers_of_track


def _counts(total: int, layouts: Sequence[MediaLayout]) -> TokenCounts:
    sums = {"audio": 0, "image": 0, "video": 0}
    for layout in layouts:
        sums[layout.modality] += layout.token_count
        sums["audio"] += layout.audio_token_count
    return TokenCounts(text=total - sum(sums.values()), audio=sums["audio"], image=sums["image"], video=sums["video"])
