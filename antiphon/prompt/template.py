"""A conversation in the words of the checkpoint's own chat template, as ids, one placeholder a medium.

The template never sees what was said: each text stands in it as a random word, so that no text can change how it reads
or complete a marker. Control tokens are looked for in the template's own words only; the texts then take their places,
and each stretch between two control tokens is tokenised as one plain text, exactly as it would be in the whole string.
"""

import json
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from antiphon.errors import CheckpointError, InvalidInput
from antiphon.prompt.conversation import Conversation, Message, Text, modality_of
from antiphon.prompt.tokenizer import PromptTokenizer


class ChatTemplate:
    def __init__(self, source: str, words: dict[str, str], origin: Path) -> None:
        """words: the tokens that a template may name, such as eos_token."""
        self._words, self._origin = words, origin
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            asked = meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError as error:
            raise CheckpointError(f"{origin}: expected a chat template in Jinja; {error}") from error
        self.takes_tools = "tools" in asked
        self.switches_thinking = "enable_thinking" in asked

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> "ChatTemplate":
        settings = _json(checkpoint / "tokenizer_config.json")
        return cls(_source(checkpoint, settings), _named_tokens(settings), checkpoint)

    def ids(self, conversation: Conversation, tokenizer: PromptTokenizer) -> list[int]:
        """Ends with the opening of the assistant's turn."""
        stand_ins = _StandIns()
        rendered = self._rendered(conversation, stand_ins)
        ids: list[int] = []
        for piece in stand_ins.put_back(rendered, tokenizer.control.pattern):
            ids += [tokenizer.control.id_of[piece.text]] if piece.is_control else tokenizer.encode_plain(piece.text)
        stand_ins.require_all_told(self._origin)
        return ids

    def _rendered(self, conversation: Conversation, stand_ins: "_StandIns") -> str:
        thinking = {} if conversation.enable_thinking is None else {"enable_thinking": conversation.enable_thinking}
        try:
            return self._template.render(
                messages=[_for_template(message, stand_ins) for message in conversation.messages],
                tools=[stand_ins.json(tool) for tool in conversation.tools] or None,
                documents=None,
                add_generation_prompt=True,
                **self._words,
                **thinking,
            )
        except _RefusedError as error:
            raise InvalidInput(f"This model's chat template refuses the messages: {error}", param="messages") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise CheckpointError(
                f"{self._origin}: its chat template does not render this conversation; {error}"
            ) from error


class _Piece:
    __slots__ = ("is_control", "text")

    def __init__(self, text: str, is_control: bool) -> None:
        self.text, self.is_control = text, is_control


class _JsonStandIn:
    """Values that a template writes by its filter tojson, or as they are; it cannot look into them."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __str__(self) -> str:
        return self._word


class _StandIns:
    """One random word for each text of a conversation, and back."""

    def __init__(self) -> None:
        # Letters and digits only, so that no filter of a template changes it.
        self._word = f"text{secrets.token_hex(16)}n"
        self._texts: list[str] = []
        self._told: set[int] = set()

    def stand_in(self, text: str) -> str:
        if not text:
            return ""
        self._texts.append(text)
        return f"{self._word}{len(self._texts) - 1}e"

    def json(self, text: str) -> _JsonStandIn:
        return _JsonStandIn(self.stand_in(text))

    def put_back(self, rendered: str, control: re.Pattern[str]) -> Iterator[_Piece]:
        """Stretches of plain text and control tokens in turn."""
        waiting: list[str] = []
        # Every second part of either split is what the pattern caught.
        for number, part in enumerate(re.split(f"{self._word}([0-9]+)e", rendered)):
            if number % 2:
                self._told.add(int(part))
                waiting.append(self._texts[int(part)])
                continue
            for place, words in enumerate(control.split(part)):
                if place % 2:
                    yield _Piece("".join(waiting), is_control=False)
                    yield _Piece(words, is_control=True)
                    waiting = []
                else:
                    waiting.append(words)
        yield _Piece("".join(waiting), is_control=False)

    def require_all_told(self, origin: Path) -> None:
        if len(self._told) != len(self._texts):
            raise CheckpointError(f"{origin}: its chat template leaves out a text of the conversation.")


class _RefusedError(TemplateError):
    """What a template says by raise_exception."""


def _for_template(message: Message, stand_ins: _StandIns) -> dict[str, object]:
    if all(isinstance(part, Text) for part in message.parts):
        content: object = "".join(stand_ins.stand_in(part.text) for part in message.parts if isinstance(part, Text))
    else:
        content = [
            {"type": "text", "text": stand_ins.stand_in(part.text)}
            if isinstance(part, Text)
            else {"type": modality_of(part)}
            for part in message.parts
        ]
    told: dict[str, object] = {"role": message.role, "content": content}
    if message.tool_calls:
        told["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": stand_ins.stand_in(call.name), "arguments": stand_ins.json(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return told


def _environment() -> ImmutableSandboxedEnvironment:
    """The settings and functions that transformers gives to chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_refused
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as transformers does
    return environment


def _to_json(value: object, indent: int | None = None) -> str:
    return str(value) if isinstance(value, _JsonStandIn) else json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_refused(message: str) -> NoReturn:
    raise _RefusedError(message)


def _source(checkpoint: Path, settings: dict[str, object]) -> str:
    """From the first of the three places where checkpoints keep their template."""
    jinja = checkpoint / "chat_template.jinja"
    if jinja.exists():
        return jinja.read_text()
    found = _json(checkpoint / "chat_template.json").get("chat_template", settings.get("chat_template"))
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}.get("default")
    if not isinstance(found, str):
        raise CheckpointError(
            f"{checkpoint}: expected a chat template in chat_template.jinja, chat_template.json or "
            "tokenizer_config.json; none is there."
        )
    return found


def _json(file: Path) -> dict[str, object]:
    if not file.exists():
        return {}
    try:
        values: object = json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(f"{file}: expected JSON; {error}") from error
    return values if isinstance(values, dict) else {}


def _named_tokens(settings: dict[str, object]) -> dict[str, str]:
    """eos_token and its like: plain strings, or objects with their content."""
    named: dict[str, str] = {}
    for name, value in settings.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            named[name] = content
    return named
