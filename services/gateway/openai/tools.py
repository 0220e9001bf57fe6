"""The fields of a request that say what its answer may call, and of what form it must be."""

from typing import Annotated, Literal

from pydantic import BaseModel, Discriminator, Field, JsonValue, Tag

from services.gateway.openai.part import FIRST_FAULT, RequestPart

TOOLS = 128
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Schema = Annotated[dict[str, JsonValue], Field(description="A JSON schema of an object.")]


class FunctionTool(RequestPart):
    name: FunctionName
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(RequestPart):
    type: Literal["function"]
    function: FunctionTool


class NamedFunction(RequestPart):
    name: str


class NamedTool(RequestPart):
    type: Literal["function"]
    function: NamedFunction


def _mode_or_tool(value: object) -> str | None:
    match value:
        case str():
            return "mode"
        case dict() | BaseModel():
            return "one"
    return None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("mode")] | Annotated[NamedTool, Tag("one")],
    Discriminator(
        _mode_or_tool,
        custom_error_type="tool_choice_type",
        custom_error_message="Input should be 'none', 'auto', 'required' or an object that names a function",
    ),
]
Tools = Annotated[list[Tool], FIRST_FAULT, Field(max_length=TOOLS)]


class CalledBefore(RequestPart):
    name: str
    arguments: str = Field(description="A JSON object, as text.")


class EarlierCall(RequestPart):
    id: str
    type: Literal["function"]
    function: CalledBefore


class TextFormat(RequestPart):
    type: Literal["text"]


class JsonObjectFormat(RequestPart):
    type: Literal["json_object"]


class NamedSchema(RequestPart):
    name: FunctionName
    description: str | None = None
    schema_: Schema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(RequestPart):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
