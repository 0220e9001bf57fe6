"""Which experts a shard holds and shall hold: read and given up by a thread of its own, while calls go on.

A call keeps what it found when it began: an expert that is given up meanwhile goes when the last such call is over.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, Protocol

import torch

from antiphon.errors import AntiphonError, Conflict, InternalError, InvalidInput, TooLarge
from antiphon.experts.table import ExpertKey
from antiphon.model.expert_weights import EXPERTS_AT_ONCE
from antiphon.model.kernels.packed_experts import ExpertWeights
from services.experts.held_layer import HeldLayer, held_layer

_LOG = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0
# While something lingers, between two looks whether it may go.
_LOOK_SECONDS: Final = 0.05
_CPU: Final = torch.device("cpu")


class ReadsExperts(Protocol):
    def read(self, layer: int, experts: Sequence[int]) -> Mapping[int, ExpertWeights]:
        """Raises CheckpointError."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """What is still to be done for the latest assignment."""

    loading: int
    dropping: int


class Holdings:
    def __init__(
        self,
        reader: ReadsExperts,
        keys: frozenset[ExpertKey],
        capacity: int,
        *,
        device: torch.device = _CPU,
        linger_seconds: float = 0.0,
    ) -> None:
        """keys: all that there are. What is not wanted any more lingers here, until trunks know of it, for so long."""
        self._reader, self._keys, self.capacity, self._device = reader, keys, capacity, device
        self._linger_seconds = linger_seconds
        self._layer_experts = len({expert for _, expert in keys})
        self._layers = [HeldLayer() for _ in {layer for layer, _ in keys}]
        self._unwanted_since: dict[ExpertKey, float] = {}
        # What could not be read, and when it is tried again; by the thread alone.
        self._retry_at: dict[ExpertKey, float] = {}
        self._held: frozenset[ExpertKey] = frozenset()
        self._wanted: frozenset[ExpertKey] = frozenset()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="expert loading", daemon=True)
        self.epoch = 0

    def of_layer(self, layer: int) -> HeldLayer:
        return self._layers[layer]

    @property
    def held(self) -> frozenset[ExpertKey]:
        return self._held

    @property
    def staying(self) -> frozenset[ExpertKey]:
        """Of what is held, what is not about to be given up."""
        return self._held & self._wanted

    def load_now(self, wanted: Iterable[ExpertKey]) -> None:
        """Before the first call: raises CheckpointError."""
        self._wanted = self._known(frozenset(wanted))
        for key in _in_groups(self._wanted):
            self._load(*key)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self) -> None:
        """Raises when nothing more will be loaded."""
        if not (self._thread.is_alive() or self._is_closed):
            raise InternalError("The thread that loads experts has ended.")

    def assign(self, epoch: int, wanted: frozenset[ExpertKey] | None) -> Pending:
        """wanted: None leaves what is held as it is. Raises Conflict when the epoch is less than the latest."""
        known = None if wanted is None else self._known(wanted)
        with self._changed:
            if epoch < self.epoch:
                raise Conflict(f"epoch: expected {self.epoch} or more, which another keeper has taken; came {epoch}.")
            self.epoch = epoch
            if known is not None:
                self._wanted = known
                now = time.monotonic()
                self._unwanted_since = {key: self._unwanted_since.get(key, now) for key in self._held - known}
            self._changed.notify_all()
            return self.pending()

    def pending(self) -> Pending:
        wanted, held = self._wanted, self._held
        return Pending(loading=len(wanted - held), dropping=len(held - wanted))

    def _known(self, wanted: frozenset[ExpertKey]) -> frozenset[ExpertKey]:
        unknown = wanted - self._keys
        if unknown:
            layer, expert = min(unknown)
            raise InvalidInput(f"Expected experts of the model; came expert {expert} of layer {layer}.")
        if len(wanted) > self.capacity:
            raise TooLarge(f"Expected at most {self.capacity} experts, which fit here; came {len(wanted)}.")
        return wanted

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._take_a_step()
            except (AntiphonError, OSError, RuntimeError) as error:
                _LOG.warning("Experts could not be given up, and it will be tried again: %s", error)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed, _RETRY_SECONDS)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._is_closed or self._loadable() or self._droppable()):
                waits = self._held - self._wanted or self._wanted - self._held
                self._changed.wait(_LOOK_SECONDS if waits else None)
            return not self._is_closed

    def _loadable(self) -> list[ExpertKey]:
        """What is read next, in one go; what could not be read comes after everything else, one by one, so that one
        bad file keeps nothing back."""
        missing = self._wanted - self._held
        if not missing or len(self._held) >= self.capacity:
            return []
        fresh = missing - self._retry_at.keys()
        if fresh:
            layer, experts = _in_groups(fresh)[0]
            return [(layer, expert) for expert in experts[: self.capacity - len(self._held)]]
        first = min(missing, key=lambda key: self._retry_at[key])
        return [first] if self._retry_at[first] <= time.monotonic() else []

    def _droppable(self) -> list[ExpertKey]:
        before = time.monotonic() - self._linger_seconds
        return sorted(key for key in self._held - self._wanted if self._unwanted_since.get(key, before) <= before)

    def _take_a_step(self) -> None:
        """New ones first, for as long as there is room for them."""
        with self._changed:
            missing, surplus = self._loadable(), self._droppable()
        if missing:
            self._try_to_load(missing)
        else:
            self._drop(surplus[:EXPERTS_AT_ONCE])

    def _try_to_load(self, keys: Sequence[ExpertKey]) -> None:
        """Of one layer."""
        try:
            self._load(keys[0][0], [expert for _, expert in keys])
        except (AntiphonError, OSError, RuntimeError) as error:
            _LOG.warning("Experts %s could not be loaded, and will be tried again: %s", keys, error)
            self._retry_at |= dict.fromkeys(keys, time.monotonic() + _RETRY_SECONDS)
        else:
            for key in keys:
                self._retry_at.pop(key, None)

    def _load(self, layer: int, experts: Sequence[int]) -> None:
        read = self._reader.read(layer, experts)
        self._replace(layer, {**self._layers[layer].experts, **read})

    def _drop(self, keys: Collection[ExpertKey]) -> None:
        for layer, group in groupby(sorted(keys), key=itemgetter(0)):
            gone = {expert for _, expert in group}
            kept = {expert: weights for expert, weights in self._layers[layer].experts.items() if expert not in gone}
            self._replace(layer, kept)

    def _replace(self, layer: int, experts: Mapping[int, ExpertWeights]) -> None:
        made = held_layer(experts, self._layer_experts, self._device)
        with self._changed:
            self._layers[layer] = made
            others = frozenset(key for key in self._held if key[0] != layer)
            self._held = others | {(layer, expert) for expert in experts}
            self._changed.notify_all()


def _in_groups(keys: Iterable[ExpertKey]) -> list[tuple[int, list[int]]]:
    """Layer and experts that are read in one go."""
    groups = []
    for layer, group in groupby(sorted(keys), key=itemgetter(0)):
        experts = [expert for _, expert in group]
        groups += [(layer, experts[at : at + EXPERTS_AT_ONCE]) for at in range(0, len(experts), EXPERTS_AT_ONCE)]
    return groups
