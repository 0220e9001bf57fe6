"""A chat answer as it was asked, and as it is kept for a gateway that goes on with it."""

import json
from dataclasses import asdict, dataclass

from antiphon.errors import InternalError
from services.gateway.chat.events import AnswerIdentity, AnswerOptions
from services.gateway.turns.answer_journal import KeptTurn
from services.gateway.turns.request import TurnRequest


@dataclass(frozen=True, slots=True)
class AskedAnswer:
    request: TurnRequest
    options: AnswerOptions
    identity: AnswerIdentity
    # Where the request names no bound.
    default_answer_tokens: int

    def kept(self) -> KeptTurn:
        telling = json.dumps({"options": asdict(self.options), "identity": asdict(self.identity)})
        return KeptTurn(self.request, self.default_answer_tokens, telling)

    @classmethod
    def of(cls, turn: KeptTurn) -> "AskedAnswer":
        """Raises InternalError."""
        try:
            told = json.loads(turn.telling)
            options, identity = AnswerOptions(**told["options"]), AnswerIdentity(**told["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise InternalError(f"The record of an answer cannot be read ({type(error).__name__}).") from None
        return cls(turn.request, options, identity, turn.default_answer_tokens)
