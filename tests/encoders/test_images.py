"""Image files of every kind and mode to RGB; broken and oversized ones to clear errors."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from antiphon.errors import InvalidInput, TooLarge, UnreadableMedia
from services.encoders.config import EncodersSettings
from services.encoders.images import read_image

SETTINGS = EncodersSettings(checkpoint=Path("unused"), image_pixels=10_000)
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    """(height, width, 3)"""
    return np.moveaxis(read_image(data, SETTINGS).numpy(), 0, 2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_kinds_are_exact(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOURS), kind, **options)), COLOURS)


def test_jpeg_is_read_as_pillow_reads_it() -> None:
    data = encoded(Image.fromarray(COLOURS), "JPEG")
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert("P" if mode == "PA" else mode).convert(mode)
    kind = {"CMYK": "JPEG", "PA": "PNG"}.get(mode, "PNG")
    stored = encoded(image.convert("LA") if mode == "PA" else image, kind)
    assert pixels(stored).shape == (20, 30, 3)


def test_grey_of_16_bits_keeps_its_shades() -> None:
    grey = np.linspace(0, 65_535, 600).astype(np.uint16).reshape(20, 30)
    read = pixels(encoded(Image.fromarray(grey)))
    assert np.array_equal(read[:, :, 0], grey // 257)
    assert np.array_equal(read[:, :, 0], read[:, :, 2])


def test_a_palette_with_transparency_is_read() -> None:
    image = Image.fromarray(COLOURS).quantize(16)
    assert pixels(encoded(image, transparency=bytes(range(16)))).shape == (20, 30, 3)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_photo_is_turned_upright(orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOURS), exif=exif)), np.rot90(COLOURS, turns))


def test_the_first_frame_of_a_gif_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(pixels(data)[0, 0], [255, 0, 0])


def png_that_claims(width: int, height: int) -> bytes:
    """A valid header, a few bytes of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(101, 100), (10_000, 5_000), (12_000, 9_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_before_it_unfolds(size: tuple[int, int]) -> None:
    with pytest.raises(TooLarge, match="at most 10000 pixels are accepted"):
        read_image(png_that_claims(*size), SETTINGS)


BROKEN = [
    b"",
    b"not an image",
    encoded(Image.fromarray(COLOURS))[:100],
    encoded(Image.fromarray(COLOURS), "JPEG")[:300],
    png_that_claims(50, 50)[:60],
    encoded(Image.fromarray(COLOURS), "TIFF"),
    b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40),
    b"%PDF-1.4" + bytes(100),
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_image_is_refused_with_what_would_be(data: bytes) -> None:
    with pytest.raises(UnreadableMedia, match="expected a png, jpeg, webp, gif or bmp file"):
        read_image(data, SETTINGS)


def test_damaged_files_never_raise_anything_else() -> None:
    random = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        whole = encoded(Image.fromarray(COLOURS), kind)
        for _ in range(25):
            damaged = bytearray(whole)
            for place in random.integers(0, len(damaged), 8):
                damaged[place] = random.integers(0, 256)
            with suppress(InvalidInput):
                read_image(bytes(damaged), SETTINGS)


def test_a_large_image_takes_few_copies_of_itself() -> None:
    """Pillow keeps four bytes a pixel; the pixels as an array take three, twice while they are put in order."""
    large = encoded(Image.new("RGB", (2_000, 2_000)))
    settings = SETTINGS.model_copy(update={"image_pixels": 4_000_000})
    read_image(large, settings)
    converted: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "copy", lambda image: converted.append("copy") or image)
        read_image(large, settings)
    assert converted == []
