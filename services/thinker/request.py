"""One request to the Thinker: its prompt, its media, what it has written so far, and where it ends."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.sampler import SamplerState
from antiphon.engine.sequence import FinishReason
from services.thinker.expert_step import RequestExperts
from services.thinker.grammar import AnswerMatcher
from services.thinker.prompt_media import PromptMedia


@dataclass(frozen=True, slots=True)
class HiddenRows:
    """The accepted hidden rows of media rows [first_row, first_row + n), (n, width)."""

    first_row: int
    rows: Tensor


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    is_last: bool


ThinkerOutput = HiddenRows | Token


@dataclass(slots=True, eq=False)
class ThinkerRequest:
    # int64 (prompt rows)
    token_ids: NDArray[np.int64]
    # float32 (3, prompt rows)
    positions: NDArray[np.float32]
    # Of the first generated token, on all three axes.
    next_position: float
    media: PromptMedia
    sampling: SamplerState
    max_new_tokens: int
    end_ids: frozenset[int]
    sends_hidden_rows: bool
    # It ends once its prompt has been computed, and writes nothing.
    is_prefill_only: bool = False
    # Of the grammar that binds the answer; None leaves it free.
    matcher: AnswerMatcher | None = None
    # What it has to do with expert shards; None where experts are in this process.
    experts: RequestExperts | None = None

    generated: list[int] = field(default_factory=list)
    # int64 (): the newest token, on the device; the host may not know it yet.
    latest_id: Tensor | None = None
    # Media rows whose hidden rows were given already; a request that is computed again does not give them twice.
    hidden_rows_given: int = 0

    @property
    def prompt_rows(self) -> int:
        return len(self.token_ids)

    def write_inputs(self, first_row: int, token_ids: NDArray[np.int64], positions: NDArray[np.float32]) -> None:
        """Fills ids (n) and positions (3, n) of the rows from `first_row` on: of the prompt, then of what it wrote. An
        id that the host does not know yet stays as it is."""
        prompted = min(max(self.prompt_rows - first_row, 0), len(token_ids))
        token_ids[:prompted] = self.token_ids[first_row : first_row + prompted]
        positions[:, :prompted] = self.positions[:, first_row : first_row + prompted]
        if prompted < len(token_ids):
            first = first_row + prompted - self.prompt_rows
            stop = first + len(token_ids) - prompted
            known = self.generated[first:stop]
            token_ids[prompted : prompted + len(known)] = known
            positions[:, prompted:] = self.next_position + np.arange(first, stop, dtype=np.float32)

    @property
    def known_rows(self) -> int:
        """Rows whose ids are known before anything is computed: of the prompt, and of what was written elsewhere."""
        return self.prompt_rows + len(self.generated)

    def resume(self, generated_ids: list[int]) -> None:
        """Before the first step: what another replica has written of the answer, with as many draws."""
        self.generated.extend(generated_ids)
        self.sampling.resume(generated_ids)
        for _ in generated_ids:
            self.sampling.uniform()
        if self.matcher is not None:
            self.matcher.resume(generated_ids)

    def knows_input(self, row: int) -> bool:
        """False where the row's token is on the device only."""
        return row < self.prompt_rows + len(self.generated)

    def position(self, row: int) -> float:
        """Of a generated row, on all three axes."""
        return self.next_position + (row - self.prompt_rows)

    def write(self, token_id: int) -> tuple[tuple[Token, ...], FinishReason | None]:
        """One more token of the answer, and whether it is the last."""
        if self.is_prefill_only:
            return (), "stop"
        self.generated.append(token_id)
        if self.matcher is not None:
            self.matcher.write(token_id)
        reason = end_of(self.generated, self.end_ids, self.max_new_tokens)
        return (Token(token_id, reason is not None),), reason


def end_of(generated: Sequence[int], end_ids: Container[int], max_new_tokens: int) -> FinishReason | None:
    """How an answer has ended with its latest token, if it has."""
    if generated and generated[-1] in end_ids:
        return "stop"
    return "length" if len(generated) >= max_new_tokens else None
