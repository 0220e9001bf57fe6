"""Journals of the responses of live sessions: their turns, and the traces in which they are given."""

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from opentelemetry.context import Context

from antiphon.errors import InternalError
from antiphon.telemetry import tracing
from services.gateway.config import GatewaySettings
from services.gateway.realtime.admitted_turn import Journalling
from services.gateway.turns.answer_journal import AnswerJournal, AnswerJournals, KeptTurn
from services.gateway.turns.request import TurnRequest
from services.gateway.turns.usage import TurnUsage


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """How another gateway began it, and in which trace."""

    request: TurnRequest
    default_answer_tokens: int
    trace: Context


@dataclass(frozen=True, slots=True)
class LiveJournals:
    journals: AnswerJournals
    gateway: GatewaySettings

    def begun(self, response_id: str, tenant: str) -> Journalling:
        telling = json.dumps(dict(tracing.context_to_metadata()))

        def journal(asked: TurnRequest, usage: TurnUsage) -> AbstractAsyncContextManager[AnswerJournal]:
            turn = KeptTurn(asked, self.gateway.default_answer_tokens, telling)
            return self.journals.begun(tenant, response_id, turn, usage, is_told=True)

        return Journalling(journal)

    async def find(self, tenant: str, response_id: str) -> BegunTurn:
        """Raises NotFound."""
        turn = await self.journals.find(tenant, response_id, _room_of_its_session)
        try:
            return BegunTurn(
                turn.request, turn.default_answer_tokens, tracing.context_of_client(json.loads(turn.telling))
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise InternalError(f"The record of a response cannot be read ({type(error).__name__}).") from None

    def taken_over(self, response_id: str, tenant: str, begun: BegunTurn, delivered_samples: int) -> Journalling:
        def journal(_: TurnRequest, usage: TurnUsage) -> AbstractAsyncContextManager[AnswerJournal]:
            return self.journals.taken_over(tenant, response_id, usage)

        return Journalling(journal, delivered_samples, begun.default_answer_tokens)


def _room_of_its_session(_: int) -> None:
    """What a response was asked with are items of its session, which are bounded there."""
