"""A checkpoint with the real model's number of layers, experts and tensors, and widths small enough to keep in a test.

The counts are those of Qwen3-Omni-30B-A3B-Instruct, whose published checkpoint lists 28,010 tensors; config.json spells
its rotary settings the way the published one does.
"""

import json
from pathlib import Path
from typing import Any

from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

REAL_TENSOR_COUNT = 28_010
WIDTH = 8
ROPE = {"rope_type": "default", "rope_theta": 1_000_000, "mrope_section": [2, 1, 1], "interleaved": True}
MEDIA = {
    "audio_token_id": 151675,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "audio_start_token_id": 151669,
    "vision_start_token_id": 151652,
    "position_id_per_seconds": 13,
    "seconds_per_chunk": 2,
}


def build_real_layout(directory: Path) -> Path:
    """Writes weights (whatever transformers initialises them with) and config.json."""
    model = Qwen3OmniMoeForConditionalGeneration(Qwen3OmniMoeConfig(**_config()))
    model.save_pretrained(directory, max_shard_size="2MB")
    file = directory / "config.json"
    file.write_text(json.dumps(_spelled_as_published(json.loads(file.read_text()))))
    return directory


def _config() -> dict[str, Any]:
    attention = {"num_key_value_heads": 1, "head_dim": 8, "hidden_size": WIDTH}
    thinker_text = {
        **attention,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "num_hidden_layers": 48,
        "num_experts": 128,
    }
    thinker_text |= {
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 4,
        "intermediate_size": 4,
        "rope_parameters": ROPE,
    }
    talker_text = {
        **attention,
        "num_attention_heads": 2,
        "vocab_size": 1100,
        "num_hidden_layers": 20,
        "num_experts": 128,
    }
    talker_text |= {"num_experts_per_tok": 6, "moe_intermediate_size": 4, "shared_expert_intermediate_size": 4}
    talker_text |= {"intermediate_size": 8, "norm_topk_prob": True, "rope_parameters": ROPE}
    code_predictor = {**attention, "num_attention_heads": 2, "vocab_size": 16, "num_hidden_layers": 5}
    code_predictor |= {"intermediate_size": 8, "num_code_groups": 16}
    audio = {"d_model": 8, "encoder_layers": 32, "encoder_attention_heads": 2, "encoder_ffn_dim": 8, "n_window": 50}
    audio |= {"n_window_infer": 800, "output_dim": WIDTH, "downsample_hidden_size": 2, "num_mel_bins": 128}
    vision = {"depth": 27, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": WIDTH}
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [8, 16, 24]}
    code2wav = {"codebook_size": 16, "hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    code2wav |= {"intermediate_size": 8, "num_hidden_layers": 8, "decoder_dim": 32, "sliding_window": 72}
    talker = {"text_config": talker_text, "code_predictor_config": code_predictor, "num_code_groups": 16, **MEDIA}
    talker |= {"thinker_hidden_size": WIDTH, "accept_hidden_layer": 24, "spatial_merge_size": 2, "codec_pad_id": 1048}
    talker |= {"codec_bos_id": 1049, "codec_eos_token_id": 1050, "codec_nothink_id": 1055, "codec_think_bos_id": 1056}
    talker |= {"codec_think_eos_id": 1057, "speaker_id": {"chelsie": 1061, "ethan": 1062, "aiden": 1063}}
    thinker = {"audio_config": audio, "vision_config": vision, "text_config": thinker_text, **MEDIA}
    speech_ids = {"tts_pad_token_id": 61, "tts_bos_token_id": 62, "tts_eos_token_id": 63}
    parts = {"thinker_config": thinker, "talker_config": talker, "code2wav_config": code2wav}
    return {**parts, **speech_ids, "enable_audio_output": True}


def _spelled_as_published(section: Any) -> Any:
    """transformers 5 writes rope_parameters; the published file has rope_theta and rope_scaling."""
    if not isinstance(section, dict):
        return section
    spelled = {key: _spelled_as_published(value) for key, value in section.items()}
    rope = spelled.pop("rope_parameters", None)
    if rope is not None:
        spelled["rope_theta"] = rope.pop("rope_theta", 10_000)
        spelled["rope_scaling"] = rope or None
    return spelled
