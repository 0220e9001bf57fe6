"""Modalities and layouts of media, as messages tell them and as a prompt reads them."""

from collections.abc import Mapping
from typing import Final

from antiphon.errors import InternalError
from antiphon.prompt.conversation import Modality
from antiphon.prompt.layout import MediaLayout
from antiphon.v1 import media_pb2

MODALITY_NAMES: Final[Mapping[media_pb2.Modality, Modality]] = {
    media_pb2.MODALITY_AUDIO: "audio",
    media_pb2.MODALITY_IMAGE: "image",
    media_pb2.MODALITY_VIDEO: "video",
}
MODALITY_NUMBERS: Final[Mapping[Modality, media_pb2.Modality]] = {
    name: number for number, name in MODALITY_NAMES.items()
}


def layout_message(layout: MediaLayout) -> media_pb2.MediaLayout:
    return media_pb2.MediaLayout(
        index=layout.index,
        modality=MODALITY_NUMBERS[layout.modality],
        token_count=layout.token_count,
        grid_time=layout.grid_time,
        grid_height=layout.grid_height,
        grid_width=layout.grid_width,
        seconds_per_grid=layout.seconds_per_grid,
        audio_token_count=layout.audio_token_count,
        audio_seconds=layout.audio_seconds,
    )


def read_layout(message: media_pb2.MediaLayout) -> MediaLayout:
    """Raises InternalError for a modality that there is not: layouts come from the encoders."""
    if message.modality not in MODALITY_NAMES:
        raise InternalError(f"The encoders told a layout of modality {message.modality}; there is none such.")
    return MediaLayout(
        index=message.index,
        modality=MODALITY_NAMES[message.modality],
        token_count=message.token_count,
        grid_time=message.grid_time,
        grid_height=message.grid_height,
        grid_width=message.grid_width,
        seconds_per_grid=message.seconds_per_grid,
        audio_token_count=message.audio_token_count,
        audio_seconds=message.audio_seconds,
    )
