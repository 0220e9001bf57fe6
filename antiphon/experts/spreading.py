"""Copies of one expert are not to be lost together: in different zones where there are several, else on different
hosts, else on different shards."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def domains_of(zones: Sequence[str], hosts: Sequence[str]) -> NDArray[np.int64]:
    """(shards): the number of the domain that each is lost with."""
    named = next((names for names in (zones, hosts) if len(set(names)) > 1), range(len(zones)))
    return np.unique(np.array(named), return_inverse=True)[1].astype(np.int64)


def confined(held: NDArray[np.bool_], domains: NDArray[np.int64]) -> NDArray[np.bool_]:
    """held (shards, layers, experts) -> (layers, experts): several copies, all of them in one domain."""
    inside = np.stack([held[domains == domain].any(axis=0) for domain in np.unique(domains)]).sum(axis=0)
    found: NDArray[np.bool_] = (held.sum(axis=0) > 1) & (inside == 1)
    return found


def spread(
    held: NDArray[np.bool_], heat: NDArray[np.float64], limits: NDArray[np.int64], domains: NDArray[np.int64]
) -> None:
    """Moves a copy of each confined expert into another domain, in place: to where there is room, or against another
    copy that is not needed there, of about the same heat (of one copy: layers, experts) and rather of the same layer.
    Those stay as they are against which nothing can be had: every other domain is full of what must be there."""
    if len(np.unique(domains)) < 2:
        return
    for layer, expert in np.argwhere(confined(held, domains)):
        home = domains[int(held[:, layer, expert].argmax())]
        free = np.flatnonzero((domains != home) & (held.sum(axis=(1, 2)) < limits))
        giver = int(np.flatnonzero(held[:, layer, expert])[-1])
        if len(free):
            taker = int(free[(held[free, layer] @ heat[layer]).argmin()])
        else:
            found = _exchange(held, heat, domains, (int(layer), int(expert)))
            if found is None:
                continue
            giver, taker, back = found
            held[taker, back[0], back[1]], held[giver, back[0], back[1]] = False, True
        held[giver, layer, expert], held[taker, layer, expert] = False, True


def _exchange(
    held: NDArray[np.bool_], heat: NDArray[np.float64], domains: NDArray[np.int64], key: tuple[int, int]
) -> tuple[int, int, tuple[int, int]] | None:
    """Who gives, who takes, and what comes back."""
    layer, expert = key
    holders = np.flatnonzero(held[:, layer, expert])
    home = domains[holders[0]]
    copies, at_home = held.sum(axis=0), held[domains == home].sum(axis=0)
    # Home they may come if that leaves one elsewhere, or if there is only this one.
    is_free = (copies == 1) | (at_home < copies - 1)
    difference = np.abs(heat - heat[layer, expert]) + (np.arange(len(heat)) != layer)[:, None]
    offered = held & (domains != home)[:, None, None] & is_free
    for place in np.argsort(np.where(offered, difference, np.inf), axis=None, kind="stable"):
        taker, other, back = (int(each) for each in np.unravel_index(int(place), held.shape))
        if not offered[taker, other, back]:
            return None
        givers = holders[~held[holders, other, back]]
        if len(givers):
            return int(givers[0]), taker, (other, back)
    return None
