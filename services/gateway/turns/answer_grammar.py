"""What an answer must be, as a grammar: JSON of a schema, calls of some functions, or either.

Markers stand in it as rules, which `with_markers` writes: as tokens where the checkpoint has them, else as text.

JSON is written as Python's json does, with one space behind commas and colons: the form of templates and training data,
and one in which no space can go on for ever.
"""

import json
from collections.abc import Container, Iterable, Sequence
from typing import Final

from pydantic import JsonValue

from antiphon.errors import InvalidInput
from services.gateway.openai.tools import FunctionTool
from services.gateway.turns.answer_parts import CALLED, THINK, THOUGHT, TOOL_CALL
from services.gateway.turns.request import AnswerGrammar

# Of one answer; a model that was not taught to stop would call for ever.
MOST_CALLS: Final = 16
_WRITTEN: Final = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}
_NO_PARAMETERS: Final[dict[str, JsonValue]] = {"type": "object", "properties": {}, "additionalProperties": False}

# Where a schema has no other keywords, its objects can be closed and still be met.
_SIMPLE: Final = {
    *("type", "properties", "required", "items", "minItems", "maxItems"),
    *("title", "description", "default", "examples", "$schema", "$defs"),
}

_Schema = dict[str, JsonValue]


class SchemaBounds:
    def __init__(self, *, characters: int, depth: int) -> None:
        self._characters, self._depth = characters, depth

    def check(self, schema: JsonValue, param: str) -> None:
        """Raises InvalidInput."""
        if _depth(schema, self._depth) > self._depth:
            raise InvalidInput(
                f"The schema in '{param}' is nested too deeply: at most {self._depth} levels.", param=param
            )
        characters = len(json.dumps(schema))
        if characters > self._characters:
            raise InvalidInput(
                f"The schema in '{param}' is too large: at most {self._characters} characters of JSON; got "
                f"{characters}.",
                param=param,
                code="string_above_max_length",
            )


def json_grammar(schema: _Schema, param: str) -> AnswerGrammar:
    return AnswerGrammar("answer: " + _json(schema), param)


def calls_grammar(functions: Sequence[FunctionTool], *, is_parallel: bool, param: str) -> AnswerGrammar:
    """One of these functions at least."""
    return AnswerGrammar("\n".join(["answer: calls", *_calls(functions, is_parallel=is_parallel)]), param)


def calls_or_json_grammar(
    functions: Sequence[FunctionTool], schema: _Schema, *, is_parallel: bool, param: str
) -> AnswerGrammar:
    rules = ["answer: calls | json", "json: " + _json(schema), *_calls(functions, is_parallel=is_parallel)]
    return AnswerGrammar("\n".join(rules), param)


def with_markers(lark: str, tokens: Container[str], *, thinks: bool, is_thinking: bool) -> str:
    """tokens: the checkpoint's control tokens, of which llguidance knows each by its name only."""
    markers = {"tool_call": TOOL_CALL, "called": CALLED, "think": THINK, "thought": THOUGHT}
    rules = [f"{name}: {mark if mark in tokens else json.dumps(mark)}" for name, mark in markers.items()]
    thoughts = "THOUGHTS thought " + json.dumps("\n\n")
    start = f"{thoughts} answer" if is_thinking else f"think {thoughts} answer" if thinks else "answer"
    return "\n".join([f"start: {start}", *rules, "THOUGHTS: /(?s:.*)/", lark])


def _calls(functions: Sequence[FunctionTool], *, is_parallel: bool) -> Iterable[str]:
    yield "calls: call" + (f' ("\\n" call){{0,{MOST_CALLS - 1}}}' if is_parallel else "")
    yield "call: " + " | ".join(f"call_{number}" for number in range(len(functions)))
    for number, function in enumerate(functions):
        head = json.dumps(f'\n{{"name": "{function.name}", "arguments": ')
        yield f'call_{number}: tool_call {head} arguments_{number} "}}\\n" called'
        yield f"arguments_{number}: " + _json(_closed(parameters_of(function)))


def parameters_of(function: FunctionTool) -> _Schema:
    return _NO_PARAMETERS if function.parameters is None else {"type": "object", **function.parameters}


def _closed(schema: JsonValue) -> JsonValue:
    """Objects hold what they list where nothing else is said: a function takes no argument that it does not name."""
    if not isinstance(schema, dict) or not schema.keys() <= _SIMPLE:
        return schema
    closed = dict(schema)
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    properties, required = schema.get("properties"), schema.get("required", [])
    if isinstance(properties, dict) and isinstance(required, list) and all(name in properties for name in required):
        closed["properties"] = {name: _closed(each) for name, each in properties.items()}
        closed["additionalProperties"] = False
    return closed


def _json(schema: JsonValue) -> str:
    return "%json " + json.dumps({**schema, **_WRITTEN} if isinstance(schema, dict) else schema)


def _depth(value: JsonValue, most: int) -> int:
    """Levels of objects and arrays; stops counting beyond `most`."""
    level, depth = [value], 0
    while level and depth <= most:
        inner = [each for each in level if isinstance(each, dict | list)]
        level = [child for each in inner for child in (each.values() if isinstance(each, dict) else each)]
        depth += bool(inner)
    return depth
