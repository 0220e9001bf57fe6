"""How media become numbers, in the file that transformers' Qwen3OmniMoeProcessor reads, and the chat template.

Written out, because to construct that processor one needs torchvision, which nothing else here needs.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from recipes.nano.domain import films, pictures
from recipes.nano.model.log_mel import MEL_BINS, RATE_HZ, SAMPLES_PER_FRAME, WINDOW_SAMPLES
from recipes.nano.model.vision_tower import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE

TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_LONGEST_SOUND_SECONDS = 300
_BICUBIC = 3

Section = Mapping[str, object]


def write_processor(folder: Path) -> None:
    """Writes processor_config.json and chat_template.jinja."""
    sections = {
        "feature_extractor": _feature_extractor(),
        "image_processor": _image_processor(),
        "processor_class": "Qwen3OmniMoeProcessor",
        "video_processor": _video_processor(),
    }
    (folder / "processor_config.json").write_text(json.dumps(sections, indent=2, sort_keys=True) + "\n")
    shutil.copy(TEMPLATE, folder / TEMPLATE.name)


def _feature_extractor() -> Section:
    samples = _LONGEST_SOUND_SECONDS * RATE_HZ
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "sampling_rate": RATE_HZ,
        "feature_size": MEL_BINS,
        "n_fft": WINDOW_SAMPLES,
        "hop_length": SAMPLES_PER_FRAME,
        "dither": 0.0,
        "chunk_length": _LONGEST_SOUND_SECONDS,
        "n_samples": samples,
        "nb_max_frames": samples // SAMPLES_PER_FRAME,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


def _image_processor() -> Section:
    return {"image_processor_type": "Qwen2VLImageProcessor", **_patches(pictures.SIDE_PIXELS)}


def _video_processor() -> Section:
    return {
        "video_processor_type": "Qwen2VLVideoProcessor",
        **_patches(films.SIDE_PIXELS),
        "cap_pixels_per_frame": False,
        "do_sample_frames": False,
        "max_frames": 768,
        "max_video_tokens": 128_000,
        "min_frames": 4,
        "return_metadata": False,
    }


def _patches(side_pixels: int) -> Section:
    """Whatever comes is resized to as many pixels as the model was trained on."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "merge_size": MERGE_SIZE,
        "patch_size": PATCH_SIZE,
        "resample": _BICUBIC,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": side_pixels**2, "shortest_edge": side_pixels**2},
        "temporal_patch_size": TEMPORAL_PATCH_SIZE,
    }
