"""A whole run of the recipe in one file: the settings of every stage, read from TOML."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recipes.nano.assemble.settings import AssembleSettings
from recipes.nano.codec.settings import CodecSettings
from recipes.nano.domain.settings import CorpusSettings
from recipes.nano.errors import RecipeError
from recipes.nano.evaluation.settings import EvaluationSettings
from recipes.nano.speech.settings import SpeechSettings
from recipes.nano.stages import Stage
from recipes.nano.talker.settings import TalkerSettings
from recipes.nano.thinker.settings import ThinkerSettings
from recipes.nano.tokenizer.settings import TokenizerSettings

# What a value in a TOML file can be.
Value = str | int | float | bool | list["Value"] | dict[str, "Value"]
Table = dict[str, Value]


class Recipe(BaseModel):
    """`stages`: what `all` runs, in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[Stage, ...] = Field(min_length=1)
    corpus: CorpusSettings
    speech: SpeechSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    codec: CodecSettings
    thinker: ThinkerSettings
    talker: TalkerSettings
    assemble: AssembleSettings = AssembleSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


def read_recipe(file: Path) -> Recipe:
    """Raises RecipeError that names the file, the setting and what it should be."""
    try:
        return Recipe.model_validate(_read(file))
    except ValidationError as wrong:
        raise RecipeError(f"{file}: {wrong}") from wrong


def _read(file: Path) -> Table:
    """A file may extend another one beside it: it says only what differs."""
    try:
        own = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as wrong:
        raise RecipeError(f"{file}: expected settings in TOML: {wrong}") from wrong
    base = own.pop("extends", None)
    return own if base is None else _overlaid(_read(file.parent / base), own)


def _overlaid(below: Table, above: Table) -> Table:
    """Tables are merged, all other values replaced."""
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        beneath, value = below[name], above[name]
        if isinstance(beneath, dict) and isinstance(value, dict):
            merged[name] = _overlaid(beneath, value)
    return merged
