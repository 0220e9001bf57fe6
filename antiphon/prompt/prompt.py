"""From a conversation to a prompt: ids with every placeholder expanded, and 3-D positions, for Thinker and Talker."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.prompt.conversation import Conversation
from antiphon.prompt.layout import MediaLayout


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
    # The ids that open the assistant's turn. The Talker counts on three; there are more only when thinking is switched.
    assistant_prefix_ids: tuple[int, ...]
    counts: TokenCounts


class PromptBuilder:
    """The prompt side of one checkpoint. Holds no state of any request: one serves all, from any thread."""

    def __init__(self, checkpoint: Path) -> None:
        raise NotImplementedError

    # Tokens that prompt and answer may take together.
    context_length: int

    def build(
        self, conversation: Conversation, layouts: Sequence[MediaLayout] = (), *, answer_tokens: int = 1
    ) -> BuiltPrompt:
        """Raises ContextTooLong when the prompt and `answer_tokens` do not fit, InvalidInput when the conversation
        cannot be told in the checkpoint's template. `layouts` are those of `conversation.media`, in any order."""
        raise NotImplementedError
