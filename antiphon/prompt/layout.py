"""How the placeholder tokens of one medium lie in the prompt, in time and in space, as the encoders report it."""

from dataclasses import dataclass

from antiphon.prompt.conversation import Modality


@dataclass(frozen=True, slots=True)
class MediaLayout:
    """The fields of the proto MediaLayout, which explains them."""

    index: int
    modality: Modality
    # Of a video: of its frames only.
    token_count: int
    # In patches, before the merge; zero for audio.
    grid_time: int = 0
    grid_height: int = 0
    grid_width: int = 0
    seconds_per_grid: float = 0.0
    # Of a video's own sound track; zero for a silent one.
    audio_token_count: int = 0
    audio_seconds: float = 0.0
