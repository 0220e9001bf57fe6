"""One step of a decoder, from its beginning until its outcomes are known."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch

from antiphon.engine.generation import OutputT
from antiphon.engine.runner import Outcome
from antiphon.engine.sequence import RequestT, Slice
from antiphon.errors import AntiphonError, InternalError

_log = logging.getLogger(__name__)

# Begins to compute the slices; what it gives waits for the outcomes.
Launch = Callable[[list[Slice[RequestT]]], Callable[[], list[Outcome[OutputT]]]]


@dataclass(frozen=True, slots=True)
class Step(Generic[RequestT, OutputT]):
    """A step that fails ends the sequences that are in it, and no other; but a lost device ends the loop."""

    plan: list[Slice[RequestT]]
    outcomes: Callable[[], list[Outcome[OutputT]]]
    # Of time.perf_counter().
    began: float

    @classmethod
    def begin(
        cls, plan: list[Slice[RequestT]], launch: Launch[RequestT, OutputT], name: str
    ) -> "Step[RequestT, OutputT]":
        """Raises torch.AcceleratorError only: whatever is computed after that fails too. So do its outcomes."""
        now = time.perf_counter()
        for part in plan:
            clock = part.sequence.clock
            clock.steps += 1
            if clock.started is None:
                clock.started = now
        pending: list[Callable[[], list[Outcome[OutputT]]]] = []
        begun = _tried(lambda: pending.append(launch(plan)), name, len(plan))
        if begun is not None:
            return cls(plan, lambda: [Outcome(error=begun)] * len(plan), now)
        return cls(plan, lambda: _collected(pending[0], name, len(plan)), now)


def _collected(wait: Callable[[], list[Outcome[OutputT]]], name: str, count: int) -> list[Outcome[OutputT]]:
    found: list[Outcome[OutputT]] = []

    def collect() -> None:
        found.extend(wait())
        if len(found) != count:
            raise InternalError(f"Expected {count} outcomes of a step; the runner gave {len(found)}.")

    failure = _tried(collect, name, count)
    return found if failure is None else [Outcome(error=failure)] * count


def _tried(work: Callable[[], None], name: str, count: int) -> AntiphonError | None:
    """What kept it from succeeding."""
    try:
        work()
    except torch.AcceleratorError:
        raise
    except Exception as error:
        _log.exception("A step of the %s failed; its %d requests end.", name, count)
        return _as_family(error, name)
    return None


def _as_family(error: Exception, name: str) -> AntiphonError:
    if isinstance(error, AntiphonError):
        return error
    wrapped = InternalError(f"A step of the {name} failed: {sentence(error)}")
    wrapped.__cause__ = error
    return wrapped


def sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
