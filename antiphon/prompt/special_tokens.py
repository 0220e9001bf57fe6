"""The ids that a prompt is built around, read from the checkpoint; they differ from one checkpoint to the next."""

from dataclasses import dataclass

from antiphon.errors import CheckpointError
from antiphon.prompt.checkpoint_config import PromptConfig
from antiphon.prompt.tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    im_start: int
    im_end: int
    user: int
    assistant: int
    audio_start: int
    audio_end: int
    audio_pad: int
    image_pad: int
    video_pad: int
    # None in tokenizers without thinking tags.
    think_start: int | None
    think_end: int | None

    @classmethod
    def from_checkpoint(cls, config: PromptConfig, tokenizer: PromptTokenizer) -> "SpecialTokens":
        """The configuration is what the model was trained with; a tokenizer that disagrees is another model's."""
        named = {
            "<|im_start|>": config.im_start_id,
            "<|im_end|>": config.im_end_id,
            "<|audio_pad|>": config.audio_token_id,
            "<|image_pad|>": config.image_token_id,
            "<|video_pad|>": config.video_token_id,
        }
        for name, configured in named.items():
            if tokenizer.control_id(name) != configured:
                raise CheckpointError(
                    f"{config.file}: says {name} is {configured}, the tokenizer says {tokenizer.control_id(name)}. "
                    "The files are of different models."
                )
        for role, configured in {"user": config.user_id, "assistant": config.assistant_id}.items():
            if tokenizer.encode_plain(role) != [configured]:
                raise CheckpointError(
                    f"{config.file}: says the role {role} is the one token {configured}, the tokenizer says "
                    f"{tokenizer.encode_plain(role)}. The files are of different models."
                )
        return cls(
            im_start=config.im_start_id,
            im_end=config.im_end_id,
            user=config.user_id,
            assistant=config.assistant_id,
            audio_start=tokenizer.control_id("<|audio_start|>"),
            audio_end=tokenizer.control_id("<|audio_end|>"),
            audio_pad=config.audio_token_id,
            image_pad=config.image_token_id,
            video_pad=config.video_token_id,
            think_start=tokenizer.control.id_of.get("<think>"),
            think_end=tokenizer.control.id_of.get("</think>"),
        )
