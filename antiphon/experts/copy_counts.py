"""How many copies each expert gets."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

_HALVINGS: Final = 80
_NOTHING: Final = 1e-12
# What a copy may have to do at most, given the mean of all shards, where the greedy counts cannot be packed well.
_CAPS: Final = (1.1, 1.0, 0.9)
# As a share of that cap: what has less to do can be split further without another hot copy coming of it.
_COLD: Final = 0.6


def copy_counts(
    weights: NDArray[np.float64],
    present: NDArray[np.int64],
    *,
    least: int,
    most: int,
    total: int,
    favour: float = 1.0,
) -> NDArray[np.int64]:
    """weights, present (layers, experts): the load of each expert and the copies there are. Gives each at least one
    copy and at most `most`, `total` in all; then `least` to each, the hottest first; then the rest to whichever's
    copies have most to do (greedy replication), those that are there already counting `favour` times as much. With less
    than one for each, those that are there are kept."""
    # Of equals, those of one layer do not all come first. What nobody asks for is asked for least.
    flat, there = weights.T.ravel(), present.T.ravel()
    flat = np.maximum(flat / (flat.max(initial=0.0) or 1.0), _NOTHING)
    counts = np.zeros(flat.size, dtype=np.int64)
    for _ in range(min(least, most)):
        counts[_first(flat, there > counts, total - int(counts.sum()))] += 1
    if counts.min(initial=most) >= 1 and counts.sum() < total:
        counts = _fill(flat, there, counts, most, total, favour)
    return counts.reshape(weights.T.shape).T


def other_counts(weights: NDArray[np.float64], least: int, most: int, total: int) -> Iterator[NDArray[np.int64]]:
    """weights (experts), of one layer, of sum 1. Greedy replication makes the hottest copy as cold as can be, and so
    may leave more copies of middling heat than there are shards to keep them apart. These have fewer, hotter ones."""
    for cap in _CAPS:
        counts = np.clip(np.ceil(weights * most / cap - 1e-9).astype(np.int64), min(least, most), most)
        if counts.sum() <= total:
            yield _fill_cold(weights, counts, most, total, _COLD * cap / most)


def _first(weights: NDArray[np.float64], is_there: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    return np.lexsort((-weights, ~is_there))[: max(0, count)]


def _fill(
    weights: NDArray[np.float64],
    there: NDArray[np.int64],
    least: NDArray[np.int64],
    most: int,
    total: int,
    favour: float,
) -> NDArray[np.int64]:
    """One copy after the other to the expert whose copies have most to do; done at once, by halving to the least bound
    that all copies can keep."""

    def within(bound: float) -> NDArray[np.int64]:
        needed = np.ceil(weights / bound)
        kept = np.minimum(there, np.ceil(weights * favour / bound))
        return np.clip(np.maximum(needed, kept), least, most).astype(np.int64)

    low, high = 0.0, float(weights.max()) * favour + 1.0
    for _ in range(_HALVINGS):
        bound = (low + high) / 2
        low, high = (bound, high) if within(bound).sum() > total else (low, bound)
    counts = within(high)
    left = min(total - int(counts.sum()), int((counts < most).sum()))
    hottest = np.argsort(-np.where(counts < most, weights / counts, -1.0), kind="stable")
    counts[hottest[:left]] += 1
    return counts


def _fill_cold(
    weights: NDArray[np.float64], counts: NDArray[np.int64], most: int, total: int, warmth: float
) -> NDArray[np.int64]:
    """What is left goes to those that are colder than `warmth`, the hottest of them first."""
    for _ in range(total - int(counts.sum())):
        of_copies = weights / counts
        of_copies[(counts >= most) | (of_copies >= warmth)] = -1.0
        chosen = int(of_copies.argmax())
        if of_copies[chosen] < 0:
            break
        counts[chosen] += 1
    return counts
