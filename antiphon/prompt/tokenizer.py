"""A checkpoint's tokenizer in two halves: control tokens, which only a template may write, and plain text, which can
never become one."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from antiphon.errors import CheckpointError

# How Qwen2's tokenizer cuts text before merging; a checkpoint without tokenizer.json does not write it down.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# From here on tokenising takes milliseconds.
_LONG_TEXT_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """The tokens that stand outside the merges: markers, placeholders, thinking tags."""

    id_of: dict[str, int]
    # Those without text in an answer; thinking tags have text.
    special_ids: frozenset[int]
    pattern: re.Pattern[str]


class PromptTokenizer:
    def __init__(self, tokenizer: Tokenizer, source: Path) -> None:
        self._source = source
        self._whole = tokenizer
        self._plain = Tokenizer(tokenizer.model)
        if tokenizer.normalizer is not None:
            self._plain.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            self._plain.pre_tokenizer = tokenizer.pre_tokenizer
        self.control = _control_tokens(tokenizer, source)
        self._refuse_reachable_control_tokens()

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> "PromptTokenizer":
        """From tokenizer.json, or from the vocab.json, merges.txt and tokenizer_config.json of older checkpoints."""
        whole = checkpoint / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(whole)) if whole.exists() else _from_parts(checkpoint)
        except CheckpointError:
            raise
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(f"{checkpoint}: expected a tokenizer that can be read; {error}") from error
        return cls(tokenizer, checkpoint)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text` as mere text: whatever it says, no control token comes out."""
        if len(text) < _LONG_TEXT_CHARACTERS:
            return self._plain.encode(text, add_special_tokens=False).ids
        # Only a batch is encoded without holding the interpreter's lock.
        return self._plain.encode_batch([text], add_special_tokens=False)[0].ids

    def control_id(self, name: str) -> int:
        if name not in self.control.id_of:
            raise CheckpointError(f"{self._source}: expected the tokenizer to have the token {name}; it is missing.")
        return self.control.id_of[name]

    def as_json(self) -> str:
        """All of it, as tokenizer.json holds it."""
        return str(self._whole.to_str())

    def token(self, token_id: int) -> str | None:
        return self._whole.id_to_token(token_id)

    def _refuse_reachable_control_tokens(self) -> None:
        for content, token_id in self.control.id_of.items():
            if token_id in self.encode_plain(content):
                raise CheckpointError(
                    f"{self._source}: plain text {content!r} becomes its control token; such a tokenizer cannot keep "
                    "users' text apart from the template's."
                )


def _control_tokens(tokenizer: Tokenizer, source: Path) -> ControlTokens:
    added = tokenizer.get_added_tokens_decoder()
    if not added:
        raise CheckpointError(f"{source}: expected a tokenizer with control tokens such as <|im_start|>; it has none.")
    for token in added.values():
        if token.lstrip or token.rstrip or token.single_word:
            raise CheckpointError(
                f"{source}: the token {token.content!r} takes spaces beside it, which is not supported."
            )
    id_of = {token.content: token_id for token_id, token in added.items()}
    longest_first = sorted(id_of, key=len, reverse=True)
    return ControlTokens(
        id_of=id_of,
        special_ids=frozenset(token_id for token_id, token in added.items() if token.special),
        pattern=re.compile("(" + "|".join(map(re.escape, longest_first)) + ")"),
    )


def _from_parts(checkpoint: Path) -> Tokenizer:
    missing = [
        name for name in ("vocab.json", "merges.txt", "tokenizer_config.json") if not (checkpoint / name).exists()
    ]
    if missing:
        raise CheckpointError(
            f"{checkpoint}: expected tokenizer.json, or vocab.json, merges.txt and tokenizer_config.json; "
            f"{', '.join(['tokenizer.json', *missing])} is not there."
        )
    vocabulary, merges = models.BPE.read_file(str(checkpoint / "vocab.json"), str(checkpoint / "merges.txt"))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _add_control_tokens(tokenizer, checkpoint / "tokenizer_config.json")
    return tokenizer


def _add_control_tokens(tokenizer: Tokenizer, file: Path) -> None:
    """In the order of their ids, which tokenizers assigns by counting on from the vocabulary."""
    written = json.loads(file.read_text()).get("added_tokens_decoder", {})
    for token_id, fields in sorted(written.items(), key=lambda item: int(item[0])):
        flags = {name: bool(fields.get(name, False)) for name in ("lstrip", "rstrip", "single_word", "normalized")}
        token = AddedToken(fields["content"], special=bool(fields.get("special", False)), **flags)
        if token.special:
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])
        given = cast(int, tokenizer.token_to_id(token.content))
        if given != int(token_id):
            raise CheckpointError(
                f"{file}: expected {token.content!r} to have the id {token_id}, but counting on from vocab.json gives "
                f"{given}. The files are of different models."
            )
