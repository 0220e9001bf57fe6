"""What the pages of the user's turns hold, as keys that later turns of the same tenant can find them by.

A row of them follows from its id and position, at a medium's placeholder also from the Thinker's hidden row, and from
all rows before it. The assistant's rows are of one speech only and get no key.
"""

import numpy as np
import torch

from antiphon.engine.page_keys import KeyChain
from services.talker.request import TalkerRequest


class TalkerPageKeys:
    """Read by whoever brings the hidden rows; the engine's thread only looks."""

    def __init__(self, request: TalkerRequest, salt: bytes, page_rows: int) -> None:
        """salt: of the tenant."""
        self._request, self._page_rows = request, page_rows
        self._chain = KeyChain(salt)
        # (user rows, 3)
        self._positions = np.ascontiguousarray(request.prompt.positions[:, : request.user_rows].T)

    def read_prompt(self) -> None:
        """As far as its hidden rows have come."""
        accepted, size = self._request.accepted, self._page_rows
        readable = min(accepted.available_rows, self._request.user_rows)
        for start in range(len(self._chain) * size, readable - size + 1, size):
            rows = slice(start, start + size)
            inside = slice(*np.searchsorted(accepted.prompt_rows, (start, start + size)).tolist())
            hidden = [accepted.rows[inside].view(torch.uint8).numpy().data] if inside.start < inside.stop else []
            self._chain.append(self._request.prompt.token_ids[rows].data, self._positions[rows].data, *hidden)

    def key(self, page: int) -> bytes | None:
        return self._chain.get(page)
