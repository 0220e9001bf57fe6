"""What an answer of a live session may call, in the words in which a turn is asked for it."""

import json
from dataclasses import dataclass

from antiphon.errors import InvalidInput
from services.gateway.config import GatewaySettings
from services.gateway.openai.tools import FunctionTool
from services.gateway.realtime.core.response import AnswerOptions, Tool
from services.gateway.served_model import ServedModel
from services.gateway.turns.answer_grammar import SchemaBounds, calls_grammar, parameters_of
from services.gateway.turns.answer_parts import AnswerForm
from services.gateway.turns.request import AnswerGrammar


@dataclass(frozen=True, slots=True)
class AskedTools:
    # As the template tells them.
    told: tuple[str, ...]
    form: AnswerForm
    grammar: AnswerGrammar | None
    most_calls: int | None


def asked_tools(options: AnswerOptions) -> AskedTools:
    tools = options.tools if options.tool_choice != "none" else ()
    return AskedTools(
        told=tuple(_as_json(tool) for tool in tools),
        form=AnswerForm(tools=frozenset(tool.name for tool in tools)),
        grammar=_grammar(options),
        most_calls=1 if tools and not options.calls_in_parallel else None,
    )


def check_tools(options: AnswerOptions, model: ServedModel, settings: GatewaySettings, param: str) -> None:
    """Raises InvalidInput where they cannot be told to the model, or the choice is of none of them."""
    if options.tools and not model.takes_tools:
        raise InvalidInput(
            f"Unsupported value for '{param}': the chat template of '{model.model_id}' does not tell of any tools.",
            param=param,
            code="unsupported_value",
        )
    bounds = SchemaBounds(characters=settings.schema_characters, depth=settings.schema_depth)
    for index, tool in enumerate(options.tools):
        bounds.check(parameters_of(_function(tool)), f"{param}[{index}].parameters")
    if options.tool_choice == "required" and not options.tools:
        raise InvalidInput("Invalid value for 'tool_choice': it needs tools; there are none.", param="tool_choice")
    if options.tool_choice not in ("auto", "none", "required", *(tool.name for tool in options.tools)):
        raise InvalidInput(
            f"Invalid value for 'tool_choice': no function '{options.tool_choice[:64]}' is among the tools.",
            param="tool_choice",
        )


def _grammar(options: AnswerOptions) -> AnswerGrammar | None:
    """One of them, where at least one must be called."""
    if options.tool_choice in ("auto", "none") or not options.tools:
        return None
    functions = [_function(tool) for tool in options.tools if options.tool_choice in ("required", tool.name)]
    is_parallel = options.tool_choice == "required" and options.calls_in_parallel
    return calls_grammar(functions, is_parallel=is_parallel, param="tools")


def _function(tool: Tool) -> FunctionTool:
    return FunctionTool.model_construct(
        name=tool.name, description=tool.description, parameters=dict(tool.parameters) or None
    )


def _as_json(tool: Tool) -> str:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)
