"""Image files to RGB pixels: png, jpeg, webp, gif (its first frame) and bmp, turned upright, of any mode."""

import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from antiphon.errors import AntiphonError, TooLarge, UnreadableMedia
from services.encoders.config import EncodersSettings

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def read_image(data: bytes, settings: EncodersSettings) -> Tensor:
    """uint8 (3, height, width). The size is checked before a pixel is unpacked."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > settings.image_pixels:
                raise _too_large(settings, f"{opened.width} x {opened.height}")
            ImageOps.exif_transpose(opened, in_place=True)  # every copy of a photograph takes 50 MB and more
            return torch.from_numpy(np.moveaxis(_rgb(opened), 2, 0).copy())
    except AntiphonError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(settings, "far more") from error
    except Exception as error:  # on broken bytes the library raises whatever it likes
        raise UnreadableMedia(
            "The image cannot be read: expected a png, jpeg, webp, gif or bmp file; "
            "the bytes are broken or of another kind."
        ) from error


def _rgb(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(height, width, 3). Transparency is dropped, as the model's own preprocessing does."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip at 255
        grey = (np.asarray(image).clip(0, 65_535) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _too_large(settings: EncodersSettings, came: str) -> TooLarge:
    return TooLarge(f"The image is too large: at most {settings.image_pixels} pixels are accepted; it has {came}.")
