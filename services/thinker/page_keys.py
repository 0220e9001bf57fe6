"""What the pages of one request hold, as keys that requests of the same tenant can find them by.

A row follows from its id and position, of a placeholder also from its media row and, where it is seen, from what vision
adds to the first layers; and from the same of all rows before it.
"""

import numpy as np
from numpy.typing import NDArray

from antiphon.engine.page_keys import KeyChain
from services.thinker.request import ThinkerRequest


class ThinkerPageKeys:
    """Pages of the prompt are read by whoever brings its media, the others by the engine's thread, after those."""

    def __init__(self, request: ThinkerRequest, salt: bytes, page_rows: int) -> None:
        """salt: of the tenant."""
        self._request, self._page_rows = request, page_rows
        self._chain = KeyChain(salt)

    def read_prompt(self) -> None:
        """As far as its media have come."""
        request = self._request
        self._read(min(request.media.available_rows, request.prompt_rows) // self._page_rows)

    def key(self, page: int) -> bytes | None:
        request = self._request
        if len(self._chain) >= request.prompt_rows // self._page_rows:
            self._read((request.prompt_rows + len(request.generated)) // self._page_rows)
        return self._chain.get(page)

    def _read(self, stop_page: int) -> None:
        first_page, size = len(self._chain), self._page_rows
        if first_page >= stop_page:
            return
        ids, positions = self._inputs(first_page * size, stop_page * size)
        media = self._request.media.contents(range(first_page * size, stop_page * size + 1, size))
        for first_row, content in zip(range(0, len(ids), size), media, strict=True):
            rows = slice(first_row, first_row + size)
            self._chain.append(ids[rows].data, positions[rows].data, *content)

    def _inputs(self, first_row: int, stop_row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids (rows) and positions (rows, 3)."""
        ids, positions = np.empty(stop_row - first_row, np.int64), np.empty((3, stop_row - first_row), np.float32)
        self._request.write_inputs(first_row, ids, positions)
        return ids, np.ascontiguousarray(positions.T)
