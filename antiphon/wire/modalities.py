"""The modalities of media, as messages number them and as a prompt names them."""

from collections.abc import Mapping
from typing import Final

from antiphon.prompt.conversation import Modality
from antiphon.v1 import media_pb2

MODALITY_NAMES: Final[Mapping[media_pb2.Modality, Modality]] = {
    media_pb2.MODALITY_AUDIO: "audio",
    media_pb2.MODALITY_IMAGE: "image",
    media_pb2.MODALITY_VIDEO: "video",
}
MODALITY_NUMBERS: Final[Mapping[Modality, media_pb2.Modality]] = {
    name: number for number, name in MODALITY_NAMES.items()
}
