"""The media of one prompt: which of its rows are placeholders, and the embedding rows that come for them in parts."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.sequence import ALL_ROWS
from antiphon.errors import InvalidInput
from antiphon.model.config import OmniConfig
from antiphon.prompt.conversation import Modality


class PromptMedia:
    """Media rows are counted in prompt order over all modalities; visual rows likewise over images and videos."""

    def __init__(self, token_ids: NDArray[np.int64], config: OmniConfig, dtype: torch.dtype) -> None:
        thinker = config.thinker
        of_modality: dict[Modality, NDArray[np.bool_]] = {
            "audio": token_ids == thinker.audio_token_id,
            "image": token_ids == thinker.image_token_id,
            "video": token_ids == thinker.video_token_id,
        }
        visual = of_modality["image"] | of_modality["video"]
        self._rows_of = {name: np.flatnonzero(mask) for name, mask in of_modality.items()}
        self._received: dict[Modality, int] = dict.fromkeys(of_modality, 0)
        # The prompt row of each media row, and of each visual row; ascending.
        self.prompt_rows = np.flatnonzero(visual | of_modality["audio"])
        self.visual_prompt_rows = np.flatnonzero(visual)
        self._width, self._dtype = thinker.text.width, dtype
        self._layers = len(thinker.vision.deepstack_blocks)
        # Memory is taken when it is written.
        self.rows = torch.empty(len(self.prompt_rows), self._width, dtype=dtype)
        self.deepstack = torch.empty(self._layers, len(self.visual_prompt_rows), self._width, dtype=dtype)

    @property
    def available_rows(self) -> int:
        """Prompt rows before the first placeholder whose embedding has not come."""
        missing = [
            rows[self._received[name]] for name, rows in self._rows_of.items() if self._received[name] < len(rows)
        ]
        return int(min(missing)) if missing else ALL_ROWS

    def add(self, modality: Modality, first_row: int, rows: Tensor, deepstack: Sequence[Tensor]) -> None:
        """rows (n, width) of one modality, which follow those that came before. Raises InvalidInput."""
        received, total = self._received[modality], len(self._rows_of[modality])
        if first_row != received:
            raise InvalidInput(f"rows.first_row: expected {received}, the next {modality} row; came {first_row}.")
        if received + len(rows) > total:
            raise InvalidInput(
                f"rows: the prompt has {total} {modality} placeholders; came rows for {received + len(rows)}."
            )
        self._check(modality, rows, deepstack)
        places = self._rows_of[modality][received : received + len(rows)]
        self.rows[np.searchsorted(self.prompt_rows, places)] = rows.to(self._dtype)
        for layer, additions in enumerate(deepstack):
            self.deepstack[layer, np.searchsorted(self.visual_prompt_rows, places)] = additions.to(self._dtype)
        self._received[modality] += len(rows)

    def contents(self, bounds: Sequence[int]) -> Iterator[list[memoryview]]:
        """For the prompt rows from each bound to the next: all that came for them, as bytes; media rows, then what
        vision adds."""
        media, visual = (
            pairwise(np.searchsorted(rows, bounds).tolist()) for rows in (self.prompt_rows, self.visual_prompt_rows)
        )
        for (first, stop), (first_visual, stop_visual) in zip(media, visual, strict=True):
            if first == stop:
                yield []
                continue
            parts = [self.rows[first:stop], self.deepstack[:, first_visual:stop_visual].contiguous()]
            yield [part.view(torch.uint8).numpy().data for part in parts if part.numel()]

    def require_all(self) -> None:
        """Raises InvalidInput when a placeholder has no row."""
        for name, rows in self._rows_of.items():
            if self._received[name] < len(rows):
                raise InvalidInput(
                    f"rows: the prompt has {len(rows)} {name} placeholders; the input ended after rows for "
                    f"{self._received[name]} of them."
                )

    def _check(self, modality: Modality, rows: Tensor, deepstack: Sequence[Tensor]) -> None:
        expected = 0 if modality == "audio" else self._layers
        if len(deepstack) != expected:
            raise InvalidInput(f"rows.deepstack: expected {expected} tensors for {modality}; came {len(deepstack)}.")
        for tensor in (rows, *deepstack):
            if tensor.shape != (len(rows), self._width):
                raise InvalidInput(f"rows: expected shape ({len(rows)}, {self._width}); came {tuple(tensor.shape)}.")
            if not tensor.isfinite().all():
                raise InvalidInput("rows: expected finite numbers; one is not.")
