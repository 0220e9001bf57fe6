"""What pydantic found wrong with a body, as one sentence about the first fault: what was expected, and what came."""

from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from antiphon.errors import InvalidInput

# Longer texts would carry a caller's content back, and into logs of clients.
_SHOWN_CHARACTERS: Final = 400
_SHOWN_VALUE_CHARACTERS: Final = 64


def invalid_body(error: ValidationError, body: bytearray) -> InvalidInput:
    found = error.errors(include_url=False)
    first = found[0]
    if first["type"] == "json_invalid":
        return InvalidInput(f"The body is not valid JSON. {_sentence(first['msg'])}", code="invalid_json")
    return invalid_value(error, from_json(body))


def invalid_value(error: ValidationError, body: object, under: tuple[str, ...] = ()) -> InvalidInput:
    """body: what was found, as JSON has it; under: where in it the value at fault stands."""
    found = error.errors(include_url=False)
    first = found[0]
    param = _path((*under, *_location(first)), body) or None
    more = _more(len(found) - 1)
    if first["type"] in ("missing", "union_tag_not_found"):
        return InvalidInput(
            f"Missing required parameter: '{param}'.{more}", param=param, code="missing_required_parameter"
        )
    code = "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    where = f"Invalid value for '{param}'" if param else "Invalid body"
    return InvalidInput(f"{where}: {_reason(first)}{more}", param=param, code=code)


def _more(faults: int) -> str:
    if not faults:
        return ""
    return " (1 more fault follows.)" if faults == 1 else f" ({faults} more faults follow.)"


def _location(error: ErrorDetails) -> tuple[int | str, ...]:
    """Of a union told apart by a field, the field is at fault."""
    if not error["type"].startswith("union_tag_"):
        return error["loc"]
    return (*error["loc"], error["ctx"]["discriminator"].strip("'"))


def _reason(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "union_tag_invalid":
            text = f"Expected one of {context['expected_tags']}; got '{context['tag'][:_SHOWN_VALUE_CHARACTERS]}'"
        case "too_short":
            text = f"Expected at least {_entries(context['min_length'])}; got {context['actual_length']}"
        case "too_many":
            text = error["msg"]
        case kind:
            text = f"{error['msg']}; got {_came(error['input'], is_type=kind.endswith('_type'))}"
    return _sentence(text)


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _came(value: object, *, is_type: bool) -> str:
    """Of a wrong type its name, of a wrong value the value."""
    match value:
        case None:
            return "null"
        case list():
            return "an array"
        case dict():
            return "an object"
        case bool():
            return str(value).lower()
        case str():
            return "a string" if is_type else f"'{value[:_SHOWN_VALUE_CHARACTERS]}'"
        case _:
            return "a number" if is_type else str(value)[:_SHOWN_VALUE_CHARACTERS]


def _sentence(text: str) -> str:
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return shown if shown.endswith((".", "…")) else f"{shown}."


def _path(location: tuple[int | str, ...], body: object) -> str:
    """messages[0].content, without the names of union members that pydantic puts between."""
    path, value = "", body
    for position, step in enumerate(location):
        last = position == len(location) - 1
        if isinstance(step, int) and isinstance(value, list):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(value, dict) and (step in value or last):
            path, value = f"{path}.{step}" if path else str(step), value.get(str(step))
    return path
