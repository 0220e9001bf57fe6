"""One turn of a live session, let in as every request is and charged to its caller."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import SpanContext

from antiphon.errors import AntiphonError
from antiphon.telemetry import tracing
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission, on_behalf_of, settled_at_end
from services.gateway.http.error_envelope import envelope_of, log_defect, status_of
from services.gateway.metering import MeteredRequest
from services.gateway.realtime.account import Account
from services.gateway.realtime.core.outcomes import RateLimit, RateLimitsUpdated
from services.gateway.realtime.core.response import Failure, Usage
from services.gateway.turns.answer_journal import AnswerJournal
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.course import FROM_THE_BEGINNING, ProgressLog, TurnCourse
from services.gateway.turns.demand import demand_of
from services.gateway.turns.gate import TurnGate
from services.gateway.turns.recovery import with_seeds
from services.gateway.turns.request import TurnEvent, TurnRequest
from services.gateway.turns.usage import TurnUsage
from services.gateway.turns.watch import TurnWatch

_ENDPOINT: Final = "/v1/realtime"
# Of all that may be limited, what the protocol has a name for.
_TOLD_BUDGETS: Final[tuple[Literal["requests", "tokens"], ...]] = ("requests", "tokens")


class LateProgress:
    """Notes how far a turn comes whose journal begins later, if ever."""

    def __init__(self) -> None:
        self._noted: list[tuple[Sequence[int], NDArray[np.int16] | None]] = []
        self._log: ProgressLog | None = None

    def record(self, token_ids: Sequence[int] = (), frames: NDArray[np.int16] | None = None) -> None:
        if self._log is not None:
            self._log.record(token_ids, frames)
        else:
            self._noted.append((token_ids, frames))

    def hand_over(self, log: ProgressLog) -> None:
        """What was noted, and from now on what comes."""
        for token_ids, frames in self._noted:
            log.record(token_ids, frames)
        self._noted, self._log = [], log


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """Runs already; whoever began it closes it."""

    asked: TurnRequest
    events: AsyncIterator[TurnEvent]
    watch: TurnWatch
    span: SpanContext
    progress: LateProgress = field(default_factory=LateProgress)


@dataclass(frozen=True, slots=True)
class Journalling:
    """Of a turn that another gateway can go on with, or has begun."""

    journal: Callable[[TurnRequest, TurnUsage], AbstractAsyncContextManager[AnswerJournal]]
    # Of one that goes on: what its listener has, and its first gateway's bound of answers without one of their own.
    delivered_samples: int = 0
    default_answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TurnOpener:
    conductor: Conductor
    gate: TurnGate
    admission: Admission

    @asynccontextmanager
    async def open(
        self,
        account: Account,
        asked: TurnRequest,
        watch: TurnWatch,
        turn_id: str,
        begun: OpenTurn | None = None,
        journalling: Journalling | None = None,
        *,
        takes_place: bool = True,
    ) -> AsyncIterator[AsyncIterator[TurnEvent]]:
        """The turn's events; leaving the block stops every stage and settles the account. begun: the same turn, where
        it runs already. takes_place: of those that the gateway and the caller may have at once; without it, the turn
        must not keep anybody out."""
        caller = await account.renew()
        asked = with_seeds(on_behalf_of(caller, asked)) if begun is None else begun.asked
        metered = MeteredRequest(_ENDPOINT, self.admission.model_id, turn_id)
        # Its name is the response's own, wherever it goes on.
        demand = demand_of(asked, turn_id.partition(".")[0])
        demand = demand if takes_place else replace(demand, place=None)
        place = self.gate.turn(watch, caller.tenant) if takes_place else self.gate.ahead()
        with place, tracing.of_tenant(caller.tenant):
            async with (
                self.admission.admit(caller, demand, watch.usage, metered) as admitted,
                _course(journalling, asked, watch.usage) as course,
                self._events(asked, watch, begun, course, journalling) as events,
                aclosing(settled_at_end(events, admitted)) as settled,
            ):
                yield settled

    def _events(
        self,
        asked: TurnRequest,
        watch: TurnWatch,
        begun: OpenTurn | None,
        course: TurnCourse,
        journalling: Journalling | None,
    ) -> AbstractAsyncContextManager[AsyncIterator[TurnEvent]]:
        if begun is not None:
            if course.log is not None:
                begun.progress.hand_over(course.log)
            return nullcontext(begun.events)
        conductor = self.conductor
        if journalling is not None and journalling.default_answer_tokens is not None:
            limits = replace(conductor.limits, default_answer_tokens=journalling.default_answer_tokens)
            conductor = replace(conductor, limits=limits)
        return conductor.open_turn(asked, watch, course)

    async def may_ask(self, caller: Caller) -> bool:
        """Something of every budget is left: who would be refused has nothing computed ahead. Raises Unavailable."""
        standing = await self.admission.standing(caller)
        return all(budget.remaining > 0 for budget in standing.values())

    async def rate_limits(self, caller: Caller) -> list[RateLimitsUpdated]:
        """What is left to a caller with limits of its own; nothing where there are none, or nobody can tell."""
        try:
            standing = await self.admission.standing(caller)
        except AntiphonError:
            return []
        limits = tuple(
            RateLimit(name, standing[name].limit, standing[name].remaining, standing[name].reset_ms / 1e3)
            for name in _TOLD_BUDGETS
            if name in standing
        )
        return [RateLimitsUpdated(limits)] if limits else []


@asynccontextmanager
async def _course(journalling: Journalling | None, asked: TurnRequest, usage: TurnUsage) -> AsyncIterator[TurnCourse]:
    if journalling is None:
        yield FROM_THE_BEGINNING
        return
    async with journalling.journal(asked, usage) as journal:
        yield TurnCourse(journal.known, journalling.delivered_samples, journal.recorder)


def usage_of(taken: TurnUsage) -> Usage:
    """Frames of films count as images: the protocol knows no other."""
    prompt = taken.prompt
    return Usage(
        input_text_tokens=prompt.text,
        input_audio_tokens=prompt.audio,
        input_image_tokens=prompt.image + prompt.video,
        cached_tokens=taken.cached_tokens,
        output_text_tokens=taken.text_tokens,
        output_audio_tokens=taken.audio_tokens,
    )


def failure_of(error: Exception) -> Failure:
    """What the client may know of it; a defect of ours is logged."""
    if status_of(error) >= 500:
        log_defect(error)
    told = envelope_of(error).error
    return Failure(told.type, told.code, told.message)
