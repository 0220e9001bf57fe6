"""One request to the Talker: its prompt, the text and the hidden rows that come, and the frames spoken so far.

Its rows, in order: the user's turns, eight rows that open the assistant's, one with the first text token, and one for
each frame, which holds the frame's codes and the text token after it. All of them follow from the integers kept here
and the hidden rows, so a request that lost its pages is computed again.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.sampler import SamplerState, SamplingParameters
from antiphon.engine.sequence import ALL_ROWS, FinishReason
from antiphon.errors import InvalidInput
from antiphon.wire.generation import PromptNumbers

# Rows between the user's turns and the first text token; with that one, the assistant's rows of the prompt.
OPENING_ROWS: Final = 8
ASSISTANT_ROWS: Final = OPENING_ROWS + 1

# int16 (code groups)
Frame = NDArray[np.int16]


class AcceptedRows:
    """The Thinker's hidden rows at the prompt's media placeholders, as they come."""

    def __init__(self, prompt_rows: NDArray[np.int64], width: int, dtype: torch.dtype) -> None:
        """prompt_rows: of the placeholders, ascending."""
        self.prompt_rows = prompt_rows
        # (placeholders, width). Memory is taken when it is written.
        self.rows = torch.empty(len(prompt_rows), width, dtype=dtype)
        self._received = 0

    @property
    def available_rows(self) -> int:
        """Prompt rows before the first placeholder whose hidden row has not come."""
        return int(self.prompt_rows[self._received]) if self._received < len(self.prompt_rows) else ALL_ROWS

    def add(self, first_row: int, rows: Tensor) -> None:
        """rows (n, width), which follow those that came before. Raises InvalidInput."""
        stop, total = self._received + len(rows), len(self.prompt_rows)
        if first_row != self._received:
            raise InvalidInput(f"hidden_rows.first_row: expected {self._received}, the next one; came {first_row}.")
        if stop > total:
            raise InvalidInput(f"hidden_rows: the prompt has {total} media placeholders; came rows for {stop}.")
        if not rows.isfinite().all():
            raise InvalidInput("hidden_rows: expected finite numbers; one is not.")
        self.rows[self._received : stop] = rows.to(self.rows.dtype)
        self._received = stop

    def require_all(self) -> None:
        if self._received < len(self.prompt_rows):
            raise InvalidInput(
                f"hidden_rows: the prompt has {len(self.prompt_rows)} media placeholders; the text ended after rows "
                f"for {self._received} of them."
            )


@dataclass(slots=True)
class SpokenText:
    """Text tokens to speak, as they come. After the last one follow an end mark and silence."""

    end_id: int
    silence_id: int
    ids: list[int] = field(default_factory=list)
    has_ended: bool = False

    def id_at(self, place: int) -> int:
        if place < len(self.ids):
            return self.ids[place]
        return self.end_id if place == len(self.ids) else self.silence_id


@dataclass(slots=True, eq=False)
class TalkerRequest:
    # Its positions cover the assistant's rows too.
    prompt: PromptNumbers
    prefix_ids: list[int]
    speaker_id: int
    accepted: AcceptedRows
    text: SpokenText
    sampling: SamplerState
    residual_sampling: SamplingParameters
    residual_generator: random.Random
    max_frames: int

    frames: list[Frame] = field(default_factory=list)
    # (width): the sum of the embeddings of the latest frame's codes, on the device; the host may not know them yet.
    latest_sum: Tensor | None = None
    # In which the residual codes of its frames were computed, beside those of others in the same steps.
    residual_codes_ms: float = 0.0

    @property
    def user_rows(self) -> int:
        return len(self.prompt.token_ids)

    @property
    def prompt_rows(self) -> int:
        return self.user_rows + ASSISTANT_ROWS

    @property
    def available_rows(self) -> int:
        """Rows before the first whose hidden row or text token has not come; it waits for them, it never pads."""
        spoken = ALL_ROWS if self.text.has_ended else self.user_rows + OPENING_ROWS + len(self.text.ids)
        return min(self.accepted.available_rows, spoken)

    def write_positions(self, first_row: int, positions: NDArray[np.float32]) -> None:
        """Fills positions (3, n) of the rows from `first_row` on."""
        count = positions.shape[1]
        prompted = min(max(self.prompt_rows - first_row, 0), count)
        positions[:, :prompted] = self.prompt.positions[:, first_row : first_row + prompted]
        if prompted < count:
            first_frame = first_row + prompted - self.prompt_rows
            frames = np.arange(first_frame, first_frame + count - prompted, dtype=np.float32)
            positions[:, prompted:] = self.prompt.next_position + frames

    @property
    def known_rows(self) -> int:
        """Rows whose frames are known before anything is computed: of the prompt, and of what was spoken elsewhere."""
        return self.prompt_rows + len(self.frames)

    def resume(self, spoken: Sequence[Frame]) -> None:
        """Before the first step: what another replica has spoken, with as many draws of the same generators."""
        self.frames.extend(spoken)
        self.sampling.resume([int(frame[0]) for frame in spoken])
        for frame in spoken:
            self.sampling.uniform()
            self.uniforms(len(frame) - 1)

    def uniforms(self, count: int) -> list[float]:
        """Draws for the residual codes of one frame; a greedy request draws nothing."""
        if self.residual_sampling.temperature <= 0:
            return [0.0] * count
        return [self.residual_generator.random() for _ in range(count)]

    def end_text(self, frames_per_token: int, least_frames: int) -> None:
        """No more text comes; what it may take to speak it is known now."""
        self.text.has_ended = True
        self.max_frames = min(self.max_frames, max(least_frames, frames_per_token * len(self.text.ids)))

    def position(self, row: int) -> float:
        """Of the row of a frame, on all three axes."""
        return self.prompt.next_position + (row - self.prompt_rows)

    def text_beside(self, row: int) -> int:
        """The text token in the row of a frame."""
        return self.text.id_at(row - self.prompt_rows + 1)

    def speak(self, frame: Frame) -> FinishReason | None:
        """One more frame, and whether it is the last."""
        self.frames.append(frame)
        return self.end

    @property
    def end(self) -> FinishReason | None:
        """How the speech has ended with its latest frame, if it has."""
        return "length" if len(self.frames) >= self.max_frames else None
