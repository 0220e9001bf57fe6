"""From a request's tools, response format and thinking to what its answer may hold, and what it must be."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from antiphon.errors import InvalidInput
from services.gateway.config import GatewaySettings
from services.gateway.openai.request import ChatCompletionRequest
from services.gateway.openai.tools import FunctionTool, JsonObjectFormat, JsonSchemaFormat, NamedTool, Tool
from services.gateway.served_model import ServedModel
from services.gateway.turns.answer_grammar import (
    SchemaBounds,
    calls_grammar,
    calls_or_json_grammar,
    json_grammar,
    parameters_of,
)
from services.gateway.turns.answer_parts import AnswerForm
from services.gateway.turns.request import AnswerGrammar

_SCHEMA_PARAM: Final = "response_format.json_schema.schema"
_ANY_OBJECT: Final[dict[str, JsonValue]] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class AskedAnswer:
    form: AnswerForm
    grammar: AnswerGrammar | None
    most_calls: int | None
    # As the template tells them.
    tools: tuple[str, ...]
    # None leaves the choice to the template.
    enable_thinking: bool | None


def asked_answer(body: ChatCompletionRequest, model: ServedModel, settings: GatewaySettings) -> AskedAnswer:
    """Raises InvalidInput."""
    bounds = SchemaBounds(characters=settings.schema_characters, depth=settings.schema_depth)
    tools = _tools(body, model, settings, bounds)
    enable_thinking = _enable_thinking(body, model)
    return AskedAnswer(
        form=AnswerForm(
            thinks=model.kind == "thinking" and enable_thinking is not False,
            tools=frozenset(tool.function.name for tool in tools),
        ),
        grammar=_grammar(body, tools, _schema(body, bounds)),
        most_calls=1 if tools and body.parallel_tool_calls is False else None,
        tools=tuple(_as_json(tool) for tool in tools),
        enable_thinking=enable_thinking,
    )


def _tools(
    body: ChatCompletionRequest, model: ServedModel, settings: GatewaySettings, bounds: SchemaBounds
) -> list[Tool]:
    """Those that this answer may call."""
    asked = body.tools or []
    for index, tool in enumerate(asked):
        _check_parameters(tool.function, bounds, f"tools[{index}].function.parameters")
    characters = sum(len(_as_json(tool)) for tool in asked)
    if characters > settings.text_characters:
        raise InvalidInput(
            f"The tools are too long: at most {settings.text_characters} characters of JSON; got {characters}.",
            param="tools",
            code="string_above_max_length",
        )
    if asked and not model.takes_tools:
        raise InvalidInput(
            f"Unsupported value for 'tools': the chat template of '{model.model_id}' does not tell of any.",
            param="tools",
            code="unsupported_value",
        )
    choice = body.tool_choice
    if choice in (None, "auto", "none"):
        return [] if choice == "none" else asked
    if not asked:
        raise InvalidInput("Invalid value for 'tool_choice': it needs 'tools'; there are none.", param="tool_choice")
    if not isinstance(choice, NamedTool):
        return asked
    if choice.function.name not in [tool.function.name for tool in asked]:
        raise InvalidInput(
            f"Invalid value for 'tool_choice': no function '{choice.function.name[:64]}' is in 'tools'.",
            param="tool_choice.function.name",
        )
    return asked


def _check_parameters(function: FunctionTool, bounds: SchemaBounds, param: str) -> None:
    schema = parameters_of(function)
    bounds.check(schema, param)
    if schema["type"] != "object":
        raise InvalidInput(f"Invalid value for '{param}': expected the schema of an object.", param=param)


def _schema(body: ChatCompletionRequest, bounds: SchemaBounds) -> dict[str, JsonValue] | None:
    match body.response_format:
        case JsonObjectFormat():
            return _ANY_OBJECT
        case JsonSchemaFormat(json_schema=named):
            schema = _ANY_OBJECT if named.schema_ is None else named.schema_
            bounds.check(schema, _SCHEMA_PARAM)
            return schema
    return None


def _grammar(
    body: ChatCompletionRequest, tools: Sequence[Tool], schema: dict[str, JsonValue] | None
) -> AnswerGrammar | None:
    functions = [tool.function for tool in tools]
    is_parallel = body.parallel_tool_calls is not False
    match body.tool_choice:
        case "required":
            return calls_grammar(functions, is_parallel=is_parallel, param="tools")
        case NamedTool(function=named):
            only = [function for function in functions if function.name == named.name]
            return calls_grammar(only, is_parallel=False, param="tools")
    if schema is None:
        return None
    param = _SCHEMA_PARAM if isinstance(body.response_format, JsonSchemaFormat) else "response_format"
    if functions:
        return calls_or_json_grammar(functions, schema, is_parallel=is_parallel, param=param)
    return json_grammar(schema, param)


def _enable_thinking(body: ChatCompletionRequest, model: ServedModel) -> bool | None:
    """What the template is told; only a thinking checkpoint's is told anything."""
    asked = body.enable_thinking
    if asked is None and body.chat_template_kwargs is not None:
        asked = body.chat_template_kwargs.enable_thinking
    param = "enable_thinking"
    if asked is None and body.reasoning_effort == "none":
        asked, param = False, "reasoning_effort"
    if asked and model.kind != "thinking":
        raise _unsupported(param, f"'{model.model_id}' does not think aloud")
    if model.kind != "thinking" or asked is None:
        return None
    if not model.switches_thinking:
        if asked:
            return None
        raise _unsupported(param, f"the chat template of '{model.model_id}' cannot switch its thinking off")
    return asked


def _unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"Unsupported value for '{param}': {reason}.", param=param, code="unsupported_value")


def _as_json(tool: Tool) -> str:
    """As it came, without what is not set."""
    return json.dumps(tool.model_dump(exclude_unset=True, exclude_none=True), ensure_ascii=False)
