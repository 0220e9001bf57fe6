"""Experts that a trunk holds beside the shards: those of a list, and those that are asked for most."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.experts.calls import ExpertCall, ExpertResult
from antiphon.experts.table import ExpertKey
from antiphon.model.expert_weights import EXPERTS_AT_ONCE
from antiphon.model.kernels.packed_experts import ExpertWeights, PackedPairs, summed_pairs, weighted_pairs

# What is held stays until another expert is asked for so much more.
_CLEARLY: Final = 1.25


class ReadsExperts(Protocol):
    def read(self, layer: int, experts: Sequence[int]) -> Mapping[int, ExpertWeights]:
        """At most EXPERTS_AT_ONCE. Raises CheckpointError."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LocalLayer:
    experts: Mapping[int, ExpertWeights]
    # Of all the layer's experts, which of them are these.
    mask: NDArray[np.bool_]


class LocalExpertSet:
    """Changed by one thread, read by the lanes."""

    def __init__(self, reader: ReadsExperts, layers: int, experts: int) -> None:
        self._reader, self._experts = reader, experts
        self._layers: list[LocalLayer | None] = [None] * layers

    @property
    def held(self) -> frozenset[ExpertKey]:
        layers = enumerate(self._layers)
        return frozenset((layer, expert) for layer, held in layers if held is not None for expert in held.experts)

    def of_layer(self, layer: int) -> LocalLayer | None:
        """None without any; never changed: what comes later is in another one."""
        return self._layers[layer]

    def hold(self, wanted: Iterable[ExpertKey]) -> None:
        """These and no others; what goes, goes before what comes is read, layer by layer."""
        by_layer = {layer: [key[1] for key in keys] for layer, keys in groupby(sorted(wanted), key=itemgetter(0))}
        for layer, held in enumerate(self._layers):
            before = {} if held is None else held.experts
            experts = by_layer.get(layer, [])
            kept = {expert: before[expert] for expert in experts if expert in before}
            self._replace(layer, kept)
            self._replace(layer, kept | self._read(layer, [each for each in experts if each not in before]))

    def _read(self, layer: int, experts: Sequence[int]) -> dict[int, ExpertWeights]:
        read: dict[int, ExpertWeights] = {}
        for at in range(0, len(experts), EXPERTS_AT_ONCE):
            read |= self._reader.read(layer, experts[at : at + EXPERTS_AT_ONCE])
        return read

    def _replace(self, layer: int, experts: Mapping[int, ExpertWeights]) -> None:
        mask = np.zeros(self._experts, dtype=np.bool_)
        mask[list(experts)] = True
        self._layers[layer] = LocalLayer(experts, mask) if experts else None


def computed(call: ExpertCall, experts: Mapping[int, ExpertWeights]) -> Tensor:
    """What a shard would give. Raises KeyError without an expert of the call."""
    ids, where = call.pair_experts.tolist(), next(iter(experts.values())).down.device
    hidden, rows, weights = (each.to(where) for each in (call.hidden, call.pair_rows, call.weights))
    pairs = PackedPairs(hidden, rows, ids, weights, call.step_pairs)
    if call.result is ExpertResult.SUMS:
        return summed_pairs(experts, pairs, torch.empty_like(hidden, dtype=torch.float32))
    return weighted_pairs(experts, pairs, hidden.new_empty(len(ids), hidden.shape[1]))


def hottest(
    asked: NDArray[np.float32], count: int, held: frozenset[ExpertKey], fixed: frozenset[ExpertKey]
) -> frozenset[ExpertKey]:
    """Of each layer the `count` experts that are asked for most, `asked` (layers, experts), beside the fixed ones.
    Those that are held already are preferred to those that are not clearly hotter."""
    found: set[ExpertKey] = set()
    for layer, pairs in enumerate(asked):
        score = [
            (float(each) * (_CLEARLY if (layer, expert) in held else 1.0), expert) for expert, each in enumerate(pairs)
        ]
        ranked = [(layer, expert) for heat, expert in sorted(score, reverse=True) if heat > 0]
        found.update([key for key in ranked if key not in fixed][:count])
    return frozenset(found)


def parsed_keys(text: str) -> frozenset[ExpertKey]:
    """layer:expert[,layer:expert...]"""
    pairs = [each.split(":") for each in text.split(",") if each]
    return frozenset((int(layer), int(expert)) for layer, expert in pairs)
