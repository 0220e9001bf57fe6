"""How evenly a placement spreads what is asked of the experts."""

import numpy as np
from numpy.typing import NDArray


def shard_loads(weights: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """weights (layers, experts), held (shards, layers, experts) -> (shards, layers): what each shard has to do of each
    layer, if the copies of an expert share its load evenly."""
    copies = np.maximum(held.sum(axis=0), 1)
    loads: NDArray[np.float64] = np.einsum("sle,le->sl", held, weights / copies)
    return loads


def imbalances(weights: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(layers): the busiest shard's load over the mean, which is what a layer's call waits for. 1 is even."""
    loads = shard_loads(weights, held)
    ratios: NDArray[np.float64] = loads.max(axis=0) / np.maximum(loads.mean(axis=0), 1e-300)
    return ratios


def overall_imbalance(weights: NDArray[np.float64], held: NDArray[np.bool_]) -> float:
    """The same of all layers together."""
    loads = shard_loads(weights, held).sum(axis=1)
    return float(loads.max() / max(loads.mean(), 1e-300))


def least_imbalance(weights: NDArray[np.float64], shards: int, total: int) -> float:
    """weights (experts) of one layer: no placement of `total` copies on so many shards is more even than this, since
    even one shard with nothing but one copy of the hottest kind would have so much to do."""
    shares = weights * shards / weights.sum()
    counts = np.ones(len(shares), dtype=np.int64)
    for _ in range(total - len(shares)):
        of_copies = np.where(counts < shards, shares / counts, 0.0)
        hottest = int(of_copies.argmax())
        if of_copies[hottest] <= 1.0:
            break
        counts[hottest] += 1
    return max(1.0, float((shares / counts).max()))
