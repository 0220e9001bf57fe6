"""A runner without a model: each request counts up; steps can be held and made to fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from antiphon.engine.runner import Outcome
from antiphon.engine.sequence import Slice


@dataclass(eq=False)
class Counting:
    """A request for the numbers 0 .. outputs - 1."""

    outputs: int
    given: int = 0
    released: int = 0
    fails_at: int | None = None
    steps: list[tuple[int, int]] = field(default_factory=list)


class CountingRunner:
    """page_size: of the decoder that it runs under."""

    def __init__(self, page_size: int = 4) -> None:
        self._page_size = page_size
        self.steps = 0
        self.step_began = threading.Event()
        self.breaks: Exception | None = None
        self._may_end = threading.Event()
        self._may_end.set()

    @contextmanager
    def held_step(self) -> Iterator[None]:
        """Steps do not end before the block does."""
        self._may_end.clear()
        self.step_began.clear()
        try:
            yield
        finally:
            self._may_end.set()

    def run(self, slices: list[Slice[Counting]]) -> list[Outcome[int]]:
        self.steps += 1
        self.step_began.set()
        assert self._may_end.wait(10)
        if self.breaks is not None:
            raise self.breaks
        return [self._outcome(part) for part in slices]

    def release(self, request: Counting) -> None:
        request.released += 1

    def _outcome(self, part: Slice[Counting]) -> Outcome[int]:
        request = part.sequence.request
        assert request.released == 0, "a released request is never run again"
        assert len(part.pages) * self._page_size >= part.first_row + part.row_count, "its pages stay until it has run"
        request.steps.append((part.first_row, part.row_count))
        if request.fails_at == request.given:
            raise RuntimeError("the model broke")
        if not part.samples:
            return Outcome()
        request.given += 1
        return Outcome((request.given - 1,), "length" if request.given == request.outputs else None)
