"""The few numbers of a checkpoint's config.json that a prompt depends on."""

import json
from dataclasses import dataclass
from pathlib import Path

from antiphon.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class PromptConfig:
    file: Path
    im_start_id: int
    im_end_id: int
    user_id: int
    assistant_id: int
    audio_token_id: int
    image_token_id: int
    video_token_id: int
    position_id_per_seconds: int
    # Patches a side that become one placeholder token.
    merge_size: int
    context_length: int

    @classmethod
    def from_checkpoint(cls, checkpoint: Path) -> "PromptConfig":
        file = checkpoint / "config.json"
        try:
            values: object = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: expected the config.json of a Qwen3-Omni checkpoint; {error}") from error
        return cls(
            file=file,
            im_start_id=_integer(values, "im_start_token_id", file),
            im_end_id=_integer(values, "im_end_token_id", file),
            user_id=_integer(values, "user_token_id", file),
            assistant_id=_integer(values, "assistant_token_id", file),
            audio_token_id=_integer(values, "thinker_config.audio_token_id", file),
            image_token_id=_integer(values, "thinker_config.image_token_id", file),
            video_token_id=_integer(values, "thinker_config.video_token_id", file),
            position_id_per_seconds=_integer(values, "thinker_config.position_id_per_seconds", file),
            merge_size=_integer(values, "thinker_config.vision_config.spatial_merge_size", file),
            context_length=_integer(values, "thinker_config.text_config.max_position_embeddings", file),
        )


def _integer(values: object, path: str, file: Path) -> int:
    value = values
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        came = "nothing" if value is None else repr(value)
        raise CheckpointError(
            f"{file}: expected {path} to be a whole number; found {came}. Is this a Qwen3-Omni checkpoint?"
        )
    return value
