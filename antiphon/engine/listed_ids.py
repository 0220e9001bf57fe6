"""Distinct ids and how often each was generated, as arrays that grow by one id an output."""

import numpy as np
from numpy.typing import NDArray

_SPARE = 64


class ListedIds:
    def __init__(self, first_ids: NDArray[np.int64]) -> None:
        """first_ids: distinct; seen, but not generated."""
        self._place = {token: place for place, token in enumerate(first_ids.tolist())}
        self._ids = np.concatenate((first_ids, np.zeros(_SPARE, np.int64)))
        self._counts = np.zeros(len(self._ids), np.float32)

    @property
    def ids(self) -> NDArray[np.int64]:
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> NDArray[np.float32]:
        """Of each id."""
        return self._counts[: len(self._place)]

    def record(self, token: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[place] = token
        self._counts[place] += 1
