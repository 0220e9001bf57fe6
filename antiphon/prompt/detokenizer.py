"""From token ids back to text, one token at a time, never splitting a character."""

import codecs

from antiphon.prompt.tokenizer import PromptTokenizer


class TokenBytes:
    """The bytes of every token of a checkpoint's vocabulary; shared by all detokenizers of the checkpoint."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token_id: int) -> bytes:
        """Empty for special tokens, and for ids that the model has but the tokenizer does not."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._read(token_id)
        return known

    def _read(self, token_id: int) -> bytes:
        token = None if token_id in self._tokenizer.control.special_ids else self._tokenizer.token(token_id)
        if token is None:
            return b""
        if all(letter in _BYTE_OF_LETTER for letter in token):
            return bytes(_BYTE_OF_LETTER[letter] for letter in token)
        return token.encode()


class IncrementalDetokenizer:
    """The text of one answer as its tokens arrive. Special tokens have no text."""

    def __init__(self, vocabulary: TokenBytes) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; empty in the middle of a character."""
        return self._decoder.decode(self._vocabulary[token_id])

    @property
    def is_inside_character(self) -> bool:
        return bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """What is left of a character that never became whole, as U+FFFD."""
        return self._decoder.decode(b"", final=True)


def _byte_letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as one visible letter: printable Latin-1 as itself, the rest from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in visible]
    return letters | {chr(256 + number): byte for number, byte in enumerate(hidden)}


_BYTE_OF_LETTER = _byte_letters()
