"""How large the vocabulary is."""

from pydantic import BaseModel, ConfigDict, Field


class TokenizerSettings(BaseModel):
    """`merged_tokens`: the 256 bytes and what is merged from them; the special tokens come on top."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    merged_tokens: int = Field(default=1450, ge=300, le=1_000_000)
