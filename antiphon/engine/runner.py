"""The model's side of the decoder's loop: what it is given to compute, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, runtime_checkable

from antiphon.engine.generation import OutputT
from antiphon.engine.sequence import FinishReason, RequestT, Slice
from antiphon.errors import AntiphonError, InternalError


@dataclass(frozen=True, slots=True)
class Outcome(Generic[OutputT]):
    """What one slice gave: values for the reader, and whether (and how) the sequence ends with them."""

    values: tuple[OutputT, ...] = ()
    finish_reason: FinishReason | None = None
    error: AntiphonError | None = None


def no_number(name: str) -> Outcome[OutputT]:
    """For a request of which an overflow made something that cannot be sampled from: it fails, and nobody beside it."""
    return Outcome(error=InternalError(f"The {name} computed what is no number from this request."))


class Runner(Protocol[RequestT, OutputT]):
    """The model's side of the loop, called on the decoder's thread only."""

    def run(self, slices: list[Slice[RequestT]]) -> list[Outcome[OutputT]]:
        """One outcome a slice, in order. A slice with `samples` samples; others may give values too. After a preemption
        rows run again from the first one: what was given once is not to be given twice. What it raises fails every
        request of the step, and torch.AcceleratorError, a lost device, the whole decoder."""
        ...

    def release(self, request: RequestT) -> None:
        """The request has ended, for whatever reason: called exactly once, and no slice of it follows."""
        ...


@runtime_checkable
class LaunchingRunner(Runner[RequestT, OutputT], Protocol):
    """One whose device computes while the host goes on."""

    def launch(self, slices: list[Slice[RequestT]]) -> Callable[[], list[Outcome[OutputT]]]:
        """As `run`, but waits only once the result is called, after further launches maybe: a slice may begin with what
        the one before it has not given yet. A sequence that has ended by then gets empty outcomes."""
        ...
