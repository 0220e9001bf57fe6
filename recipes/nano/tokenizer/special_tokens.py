"""The tokens that stand outside the merges, and the ids that the model's configuration needs to know."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from recipes.nano.errors import RecipeError

END_OF_TURN, PADDING = "<|im_end|>", "<|endoftext|>"
# In the order of their ids, which follow the merges'. The first nine are those that a Qwen2Tokenizer names itself.
CONTROL_TOKENS = (
    END_OF_TURN,
    PADDING,
    "<|image_pad|>",
    "<|audio_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|im_start|>",
    "<|vision_pad|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
)
# Tokens of their own, but with text: an answer shows them.
THINKING_TAGS = ("<think>", "</think>")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids. The roles are ordinary words which the merges must know whole."""

    im_start: int
    im_end: int
    padding: int
    audio_start: int
    audio_end: int
    audio_pad: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int
    tts_pad: int
    tts_bos: int
    tts_eos: int
    think_start: int
    think_end: int
    system: int
    user: int
    assistant: int

    @classmethod
    def from_folder(cls, folder: Path) -> "SpecialTokens":
        """Reads `folder/tokenizer.json`. Raises RecipeError naming the first token that it does not have."""
        tokenizer = _tokenizer(folder)
        ids: dict[str, int] = {}
        for field, text in _TEXT_OF.items():
            token_id = tokenizer.token_to_id(text)
            if token_id is None:
                raise RecipeError(f"{folder}: expected the token {text!r}; it is missing. Train the tokenizer anew.")
            ids[field] = token_id
        return cls(**ids)


def embedding_rows(folder: Path) -> int:
    """For every token of `folder/tokenizer.json` one, and so many more that matrix products have an even number of
    tiles: a multiple of 64."""
    tokens: int = _tokenizer(folder).get_vocab_size(with_added_tokens=True)
    return -(-tokens // 64) * 64


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    if not file.exists():
        raise RecipeError(f"{file}: expected a tokenizer; it is not there. Run the tokenizer stage first.")
    return Tokenizer.from_file(str(file))


_TEXT_OF = {
    "im_start": "<|im_start|>",
    "im_end": END_OF_TURN,
    "padding": PADDING,
    "audio_start": "<|audio_start|>",
    "audio_end": "<|audio_end|>",
    "audio_pad": "<|audio_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "image_pad": "<|image_pad|>",
    "video_pad": "<|video_pad|>",
    "tts_pad": "<tts_pad>",
    "tts_bos": "<tts_text_bos>",
    "tts_eos": "<tts_text_eod>",
    "think_start": "<think>",
    "think_end": "</think>",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
