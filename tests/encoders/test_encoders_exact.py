"""Rows over real gRPC against transformers' own encoders, for requests of every kind of media."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from antiphon.engine.captured_windows import CapturedWindows
from antiphon.v1.encoder_service_pb2 import EncodeResponse
from antiphon.v1.media_pb2 import MODALITY_AUDIO, MODALITY_IMAGE, MODALITY_VIDEO, Modality
from antiphon.wire import arrays
from services.encoders.config import EncodersSettings
from tests.encoders.conftest import Sent, answers, audio, image, requests, running, video
from tests.end_to_end.conversations import film, matroska_bytes, picture, png_bytes, sound, user, wav_bytes
from tests.reference.reference_inputs import Film, Part, Picture, ReferenceInputs, Sound
from tests.reference.transformers_reference import TransformersReference

TOLERANCE = 2e-5

REQUESTS: dict[str, list[Part]] = {
    "a sound": [sound(2.3)],
    "a sound over several windows": [sound(17.41)],
    "sounds that lengthen each other": [sound(0.316), sound(1.006), sound(3.0)],
    "sounds under a second": [sound(0.3), sound(0.52)],
    "an image": [picture()],
    "images of two sizes": [picture(64, 32), picture(32, 64, seed=1), picture(64, 32, seed=2)],
    "a video": [film(6)],
    "an odd video": [film(5)],
    "a video with its sound": [film(5, seconds_of_sound=2.2)],
    "everything": [
        sound(1.006),
        film(5, seconds_of_sound=2.2),
        picture(),
        film(3, 32, 32, seed=1),
        sound(2.0, seed=3),
        film(4, seed=2, seconds_of_sound=9.1),
        picture(32, 32, seed=4),
    ],
}


def as_sent(part: Part) -> Sent:
    if isinstance(part, Sound):
        return audio(wav_bytes(part))
    if isinstance(part, Picture):
        return image(png_bytes(part))
    assert isinstance(part, Film)
    return video(matroska_bytes(part), part.frames_per_second, with_sound=True)


def joined(responses: Sequence[EncodeResponse], modality: Modality, level: int | None = None) -> torch.Tensor:
    """All rows of a modality (or of one deepstack level), checking that they are counted without a gap."""
    parts: list[np.ndarray] = []
    for message in (each.rows for each in responses if each.HasField("rows") and each.rows.modality == modality):
        assert message.first_row == sum(len(part) for part in parts)
        tensor = message.rows if level is None else message.deepstack[level]
        parts.append(arrays.unpack(tensor, name="rows", shape=(None, None)))
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("message_bytes", [4 << 20, 3_000])
async def test_rows_equal_transformers(
    name: str, message_bytes: int, settings: EncodersSettings, tiny_reference: TransformersReference, tmp_path: Path
) -> None:
    media = REQUESTS[name]
    bounds = {"message_bytes": message_bytes, "audio_windows_per_job": 1 if message_bytes < 9_999 else 4}
    async with running(settings.model_copy(update=bounds), tmp_path) as encoders:
        responses = await answers(encoders, requests(*map(as_sent, media)))
    inputs = ReferenceInputs(tiny_reference.checkpoint).build([user(*media)])
    _assert_audio_equal(responses, inputs, tiny_reference)
    _assert_vision_equal(responses, inputs, tiny_reference, MODALITY_IMAGE)
    _assert_vision_equal(responses, inputs, tiny_reference, MODALITY_VIDEO)
    _assert_layouts_fit(responses, media)
    assert all(each.ByteSize() < message_bytes + 2_000 for each in responses)


def _assert_audio_equal(
    responses: list[EncodeResponse], inputs: dict[str, torch.Tensor], reference: TransformersReference
) -> None:
    rows = joined(responses, MODALITY_AUDIO)
    if "input_features" not in inputs:
        assert not len(rows)
        return
    with torch.no_grad():
        expected = reference.model.thinker.get_audio_features(
            inputs["input_features"], inputs["feature_attention_mask"]
        ).last_hidden_state
    torch.testing.assert_close(rows, expected, atol=TOLERANCE, rtol=1e-5)


def _assert_vision_equal(
    responses: list[EncodeResponse],
    inputs: dict[str, torch.Tensor],
    reference: TransformersReference,
    modality: Modality,
) -> None:
    pixels, grid = (
        ("pixel_values", "image_grid_thw") if modality == MODALITY_IMAGE else ("pixel_values_videos", "video_grid_thw")
    )
    if pixels not in inputs:
        assert not len(joined(responses, modality))
        return
    with torch.no_grad():
        expected = reference.model.thinker.model.visual(inputs[pixels], grid_thw=inputs[grid])
    torch.testing.assert_close(joined(responses, modality), expected.pooler_output, atol=TOLERANCE, rtol=1e-5)
    for level, wanted in enumerate(expected.deepstack_features):
        torch.testing.assert_close(joined(responses, modality, level), wanted, atol=TOLERANCE, rtol=1e-5)


def _assert_layouts_fit(responses: list[EncodeResponse], media: list[Part]) -> None:
    kinds = [response.WhichOneof("message") for response in responses]
    assert kinds == ["layout"] * len(media) + ["rows"] * (len(kinds) - len(media) - 1) + ["end"]
    layouts = [response.layout for response in responses[: len(media)]]
    assert [layout.index for layout in layouts] == list(range(len(media)))
    for layout, part in zip(layouts, media, strict=True):
        assert layout.token_count > 0
        if isinstance(part, Sound):
            assert layout.audio_seconds == pytest.approx(len(part.samples) / 16_000)
            assert (layout.grid_time, layout.seconds_per_grid, layout.audio_token_count) == (0, 0, 0)
        else:
            assert layout.token_count == layout.grid_time * layout.grid_height * layout.grid_width // 4
            assert layout.seconds_per_grid == (1.0 if isinstance(part, Film) else 0.0)
            assert (layout.audio_token_count > 0) == (isinstance(part, Film) and part.sound is not None)


async def test_requests_at_the_same_time_do_not_mix(settings: EncodersSettings, tmp_path: Path) -> None:
    import asyncio

    names = ["everything", "a sound", "an image", "a video with its sound", "sounds under a second"]
    async with running(settings, tmp_path) as encoders:
        alone = [await answers(encoders, requests(*map(as_sent, REQUESTS[name]))) for name in names]
        together = await asyncio.gather(*(answers(encoders, requests(*map(as_sent, REQUESTS[name]))) for name in names))
    for first, second in zip(alone, together, strict=True):
        for modality in (MODALITY_AUDIO, MODALITY_IMAGE, MODALITY_VIDEO):
            torch.testing.assert_close(joined(second, modality), joined(first, modality), atol=TOLERANCE, rtol=1e-5)


async def test_steps_of_fixed_shape_give_the_same_rows(settings: EncodersSettings, tmp_path: Path) -> None:
    media = [as_sent(part) for part in REQUESTS["everything"]]
    free, fixed = tmp_path / "free", tmp_path / "fixed"
    free.mkdir()
    fixed.mkdir()
    async with running(settings, free) as encoders:
        expected = await answers(encoders, requests(*media))
    fixed_steps = {"fixed_steps": True, "windows_per_fixed_step": 2}
    with patch.object(
        CapturedWindows, "encode_windows", autospec=True, side_effect=CapturedWindows.encode_windows
    ) as run:
        async with running(settings.model_copy(update=fixed_steps), fixed) as encoders:
            responses = await answers(encoders, requests(*media))
    assert run.call_count == 4, "one for every sound"
    torch.testing.assert_close(joined(responses, MODALITY_AUDIO), joined(expected, MODALITY_AUDIO), atol=1e-5, rtol=0)
