"""What is computed for one session before it is asked: the beginning of its next prompt, and the answer at a pause."""

from dataclasses import dataclass

from services.gateway.realtime.core.outcomes import AnswerComing, AnswerForeseen, NothingForeseen, StartAnswer
from services.gateway.realtime.preparing import Preparing
from services.gateway.realtime.speculation import HeldTurn, Speculation


@dataclass(frozen=True, slots=True)
class Ahead:
    preparing: Preparing
    speculation: Speculation

    def carry_out(self, effect: AnswerComing | AnswerForeseen | NothingForeseen) -> None:
        match effect:
            case AnswerComing():
                self.preparing.begin(effect)
            case AnswerForeseen():
                self.preparing.stop()
                self.speculation.begin(effect)
            case NothingForeseen():
                self.speculation.drop()

    def take(self, start: StartAnswer) -> HeldTurn | None:
        """The turn that runs already, if it is this one. Whoever takes it closes it."""
        if not start.response.in_conversation:
            return None
        self.preparing.stop()
        return self.speculation.take(start)
