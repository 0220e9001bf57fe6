"""Requests that begin alike, of several tenants, and a store that shows what a model would read from it.

The model of these tests: a row's value is a digest of the tenant and of all inputs up to it, and an output follows from
the value of the last row. Whoever reads a page that is not his own, or is stale, gets other outputs.
"""

from dataclasses import dataclass, field, replace
from hashlib import sha256

from hypothesis import strategies as st

from antiphon.engine.page_keys import KeyChain
from antiphon.engine.sequence import ALL_ROWS, Sequence

_ROOTS = ([1, 2, 3, 4, 5] * 10, [1, 2, 3, 9, 9] * 10)


@dataclass(eq=False)
class Alike:
    """tenant: None shares with nobody. held_rows: the input of the last so many rows of the prompt comes late."""

    tenant: int | None
    prompt: list[int]
    outputs: int
    arrives: int = 0
    held_rows: int = 0
    cancelled_at: int | None = None
    max_untaken: int = 1_000
    written: list[int] = field(default_factory=list)
    _values: list[bytes] = field(default_factory=list)

    @property
    def inputs(self) -> list[int]:
        return self.prompt + self.written

    def value(self, row: int) -> bytes:
        """A digest of the tenant and of all inputs up to this one."""
        while len(self._values) <= row:
            before = self._values[-1] if self._values else repr(self.tenant).encode()
            self._values.append(sha256(before + bytes([self.inputs[len(self._values)]])).digest())
        return self._values[row]

    def sequence(self, page_size: int) -> "Sequence[Alike]":
        held = min(self.held_rows, len(self.prompt))
        available = len(self.prompt) - held if held else ALL_ROWS
        rows = len(self.prompt) + self.outputs - 1
        sequence = Sequence(self, len(self.prompt), rows, available, self.max_untaken)
        if self.tenant is not None:
            sequence.page_keys = AlikeKeys(sequence, page_size)
        return sequence


class AlikeKeys:
    def __init__(self, sequence: Sequence[Alike], page_size: int) -> None:
        self._sequence, self._page_size = sequence, page_size
        self._chain = KeyChain(str(sequence.request.tenant).encode())

    def key(self, page: int) -> bytes | None:
        inputs = self._sequence.request.inputs[: self._sequence.available_rows]
        while (stop := (len(self._chain) + 1) * self._page_size) <= len(inputs):
            self._chain.append(bytes(inputs[stop - self._page_size : stop]))
        return self._chain.get(page)


def output(last_row: bytes) -> int:
    return last_row[0] % 7


def alone(request: Alike) -> list[int]:
    """What it would write with the store to itself."""
    other = replace(request, written=[], _values=[])
    for _ in range(request.outputs):
        other.written.append(output(other.value(len(other.inputs) - 1)))
    return other.written


@st.composite
def requests(draw: st.DrawFn) -> Alike:
    """Every second one is a later turn: it begins with the whole of an earlier request and its answer."""
    tenant = draw(st.none() | st.integers(0, 1))
    prompt = draw(st.sampled_from(_ROOTS))[: draw(st.integers(1, 40))]
    if draw(st.booleans()):
        earlier = Alike(tenant, prompt, draw(st.integers(1, 12)))
        prompt = earlier.prompt + alone(earlier)
    return Alike(
        tenant,
        prompt + draw(st.lists(st.integers(0, 3), max_size=4)),
        outputs=draw(st.integers(1, 20)),
        arrives=draw(st.integers(0, 60)),
        held_rows=draw(st.just(0) | st.integers(0, 30)),
        cancelled_at=draw(st.none() | st.integers(0, 80)),
        max_untaken=draw(st.sampled_from([1, 3, 1_000])),
    )
