"""Learns a byte-pair tokenizer that cuts and merges as Qwen2's does, with nano's special tokens after the merges."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AddedToken, Qwen2Tokenizer

from recipes.nano.errors import RecipeError

from .special_tokens import CONTROL_TOKENS, END_OF_TURN, PADDING, ROLES, THINKING_TAGS

# What transformers' Processor asks its tokenizer for.
_NAMED_TOKENS = {
    "image_token": "<|image_pad|>",
    "audio_token": "<|audio_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}
# The Talker counts on the opening of a turn being three tokens, and the model knows roles by one id.
WHOLE_WORDS = (*ROLES, "\n", "\n\n")


def train_tokenizer(texts: Iterable[str], merged_tokens: int) -> Qwen2Tokenizer:
    """merged_tokens: the 256 bytes and what is merged; fewer where `texts` have no more to merge.

    Raises RecipeError when a role did not become one token: `texts` must have each of WHOLE_WORDS often enough.
    """
    vocabulary, merges = _merges(texts, merged_tokens)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token=None,
        bos_token=None,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        model_specific_special_tokens=_NAMED_TOKENS,
        processor_class="Qwen3OmniMoeProcessor",
    )
    tokenizer.add_tokens([_token(text, special=True) for text in CONTROL_TOKENS], special_tokens=True)
    tokenizer.add_tokens([_token(text, special=False) for text in THINKING_TAGS])
    _require_whole(tokenizer)
    return tokenizer


def _merges(texts: Iterable[str], merged_tokens: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    as_qwen = Qwen2Tokenizer().backend_tokenizer
    bytes_and_merges = Tokenizer(models.BPE())
    bytes_and_merges.normalizer, bytes_and_merges.pre_tokenizer = as_qwen.normalizer, as_qwen.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=merged_tokens, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bytes_and_merges.train_from_iterator(texts, trainer)
    learnt = json.loads(bytes_and_merges.to_str())["model"]
    return learnt["vocab"], [(first, second) for first, second in learnt["merges"]]


def _token(text: str, *, special: bool) -> AddedToken:
    return AddedToken(text, special=special, normalized=False)


def _require_whole(tokenizer: Qwen2Tokenizer) -> None:
    for word in WHOLE_WORDS:
        ids = tokenizer.encode(word)
        if len(ids) != 1:
            raise RecipeError(
                f"expected {word!r} to become one token; it became {len(ids)}. Let tokenizer.merged_tokens be larger."
            )
