"""One answer's calls in OpenAI's form: in pieces as they come, and whole at the end."""

import uuid

from services.gateway.openai.response import CalledFunction, FunctionDelta, ToolCall, ToolCallChunk
from services.gateway.turns.request import ToolCallDelta


class ToolCalls:
    def __init__(self, answer_id: str) -> None:
        """The ids of the calls follow from the answer's, so that they are the same wherever it goes on."""
        self._answer_id = answer_id
        self._calls: list[ToolCall] = []

    def delta(self, event: ToolCallDelta) -> ToolCallChunk:
        if event.name is not None:
            call_id = f"call_{uuid.uuid5(uuid.NAMESPACE_OID, f'{self._answer_id}/{event.index}').hex}"
            call = ToolCall(id=call_id, function=CalledFunction(name=event.name, arguments=""))
            self._calls.append(call)
            function = FunctionDelta(name=event.name, arguments="")
            return ToolCallChunk(index=event.index, id=call.id, type="function", function=function)
        self._calls[event.index].function.arguments += event.arguments
        return ToolCallChunk(index=event.index, function=FunctionDelta(arguments=event.arguments))

    def whole(self) -> list[ToolCall]:
        return self._calls
