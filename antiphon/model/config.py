"""The shapes and ids of a Qwen3-Omni checkpoint, read once from its config.json.

Every value comes from the file: the defaults of transformers' config classes differ from the real model in many
places, so a missing key is refused, not filled in.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from antiphon.errors import CheckpointError
from antiphon.model.config_section import Section


@dataclass(frozen=True, slots=True)
class AudioEncoderConfig:
    width: int
    layers: int
    heads: int
    feed_forward: int
    mel_bins: int
    conv_channels: int
    # Mel frames inside which attention is full (800: eight seconds).
    attention_window: int
    output_width: int


@dataclass(frozen=True, slots=True)
class VisionEncoderConfig:
    width: int
    depth: int
    heads: int
    feed_forward: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    merge_size: int
    position_count: int
    output_width: int
    deepstack_blocks: tuple[int, ...]
    rope_theta: float


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A text-shaped decoder: the Thinker's, the Talker's and (without experts) the code predictor's."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    rms_eps: float
    rope_theta: float
    # Rotary frequencies per axis (time, height, width); empty for plain 1-D rotation.
    mrope_sections: tuple[int, ...]
    max_positions: int
    # Zero for dense layers, whose width is then `feed_forward`.
    experts: int
    experts_per_token: int
    expert_width: int
    norm_top_k: bool
    # The Talker's shared expert; zero without one.
    shared_expert_width: int
    feed_forward: int


@dataclass(frozen=True, slots=True)
class Code2WavConfig:
    codebook_size: int
    quantizers: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    sliding_window: int
    rms_eps: float
    rope_theta: float
    decoder_width: int
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ThinkerConfig:
    audio: AudioEncoderConfig
    vision: VisionEncoderConfig
    text: DecoderConfig
    audio_token_id: int
    image_token_id: int
    video_token_id: int


@dataclass(frozen=True, slots=True)
class TalkerConfig:
    text: DecoderConfig
    code_predictor: DecoderConfig
    code_groups: int
    # Index of the Thinker's hidden rows that the Talker reads: the output of layer k-1.
    accept_hidden_layer: int
    thinker_width: int
    codec_pad_id: int
    codec_bos_id: int
    codec_eos_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    # Speaker name in lower case -> codec id.
    speaker_ids: dict[str, int]


@dataclass(frozen=True, slots=True)
class OmniConfig:
    thinker: ThinkerConfig
    # None in checkpoints without speech (Thinking, Captioner).
    talker: TalkerConfig | None
    code2wav: Code2WavConfig | None
    im_end_id: int
    tts_pad_id: int
    tts_bos_id: int
    tts_eos_id: int

    @classmethod
    def from_checkpoint(cls, directory: Path) -> "OmniConfig":
        """Reads `directory/config.json`. Raises CheckpointError when it is missing, broken or not Qwen3-Omni."""
        file = directory / "config.json"
        try:
            values: object = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: expected the config.json of a Qwen3-Omni checkpoint; {error}") from error
        root = Section(values, "", file)
        speaks = root.has("talker_config") and root.has("code2wav_config") and root.boolean("enable_audio_output")
        return cls(
            thinker=_thinker(root.section("thinker_config")),
            talker=_talker(root.section("talker_config")) if speaks else None,
            code2wav=_code2wav(root.section("code2wav_config")) if speaks else None,
            im_end_id=root.integer("im_end_token_id"),
            tts_pad_id=root.integer("tts_pad_token_id"),
            tts_bos_id=root.integer("tts_bos_token_id"),
            tts_eos_id=root.integer("tts_eos_token_id"),
        )

    def require_talker(self) -> TalkerConfig:
        if self.talker is None:
            raise CheckpointError(
                "This checkpoint has no Talker (it is a Thinking or Captioner model); it cannot speak."
            )
        return self.talker

    def require_code2wav(self) -> Code2WavConfig:
        if self.code2wav is None:
            raise CheckpointError(
                "This checkpoint has no Code2Wav (it is a Thinking or Captioner model); it cannot speak."
            )
        return self.code2wav


def _thinker(section: Section) -> ThinkerConfig:
    return ThinkerConfig(
        audio=_audio(section.section("audio_config")),
        vision=_vision(section.section("vision_config")),
        text=_decoder(section.section("text_config")),
        audio_token_id=section.integer("audio_token_id"),
        image_token_id=section.integer("image_token_id"),
        video_token_id=section.integer("video_token_id"),
    )


def _talker(section: Section) -> TalkerConfig:
    return TalkerConfig(
        text=_decoder(section.section("text_config")),
        code_predictor=_decoder(section.section("code_predictor_config")),
        code_groups=section.integer("num_code_groups"),
        accept_hidden_layer=section.integer("accept_hidden_layer"),
        thinker_width=section.integer("thinker_hidden_size"),
        codec_pad_id=section.integer("codec_pad_id"),
        codec_bos_id=section.integer("codec_bos_id"),
        codec_eos_id=section.integer("codec_eos_token_id"),
        codec_nothink_id=section.integer("codec_nothink_id"),
        codec_think_bos_id=section.integer("codec_think_bos_id"),
        codec_think_eos_id=section.integer("codec_think_eos_id"),
        speaker_ids=section.ids("speaker_id"),
    )


def _audio(section: Section) -> AudioEncoderConfig:
    section.require("activation_function", "gelu")
    section.require("n_window", 50)  # half of the second that convolutions reach
    section.require("scale_embedding", False)
    return AudioEncoderConfig(
        width=section.integer("d_model"),
        layers=section.integer("encoder_layers"),
        heads=section.integer("encoder_attention_heads"),
        feed_forward=section.integer("encoder_ffn_dim"),
        mel_bins=section.integer("num_mel_bins"),
        conv_channels=section.integer("downsample_hidden_size"),
        attention_window=section.integer("n_window_infer"),
        output_width=section.integer("output_dim"),
    )


def _vision(section: Section) -> VisionEncoderConfig:
    section.require("hidden_act", "gelu_pytorch_tanh")
    theta, _ = section.rope(default_theta=10_000.0, kind="axial")
    return VisionEncoderConfig(
        width=section.integer("hidden_size"),
        depth=section.integer("depth"),
        heads=section.integer("num_heads"),
        feed_forward=section.integer("intermediate_size"),
        in_channels=section.integer("in_channels"),
        patch_size=section.integer("patch_size"),
        temporal_patch_size=section.integer("temporal_patch_size"),
        merge_size=section.integer("spatial_merge_size"),
        position_count=section.integer("num_position_embeddings"),
        output_width=section.integer("out_hidden_size"),
        deepstack_blocks=section.integers("deepstack_visual_indexes"),
        rope_theta=theta,
    )


def _decoder(section: Section) -> DecoderConfig:
    theta, sections = section.rope()
    section.require("attention_bias", False)
    section.require("hidden_act", "silu")
    section.require("decoder_sparse_step", 1)
    section.require("mlp_only_layers", [])
    section.require("use_sliding_window", False)
    layers, heads, kv_heads = (
        section.integer(key) for key in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    )
    section.require("layer_types", ["full_attention"] * layers)
    section.require("num_attention_heads", heads - heads % max(kv_heads, 1))
    experts_key = "num_experts" if section.has("num_experts") else "num_local_experts"
    experts = section.integer(experts_key) if section.has(experts_key) else 0
    return DecoderConfig(
        vocabulary=section.integer("vocab_size"),
        width=section.integer("hidden_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_width=section.integer("head_dim"),
        rms_eps=section.number("rms_norm_eps"),
        rope_theta=theta,
        mrope_sections=sections,
        max_positions=section.integer("max_position_embeddings"),
        experts=experts,
        experts_per_token=section.integer("num_experts_per_tok") if experts else 0,
        expert_width=section.integer("moe_intermediate_size") if experts else 0,
        norm_top_k=section.boolean("norm_topk_prob") if experts else False,
        shared_expert_width=_optional(section, "shared_expert_intermediate_size"),
        feed_forward=_optional(section, "intermediate_size"),
    )


def _code2wav(section: Section) -> Code2WavConfig:
    theta, _ = section.rope(default_theta=10_000.0)
    section.require("attention_bias", False)
    section.require("hidden_act", "silu")
    return Code2WavConfig(
        codebook_size=section.integer("codebook_size"),
        quantizers=section.integer("num_quantizers"),
        width=section.integer("hidden_size"),
        layers=section.integer("num_hidden_layers"),
        heads=section.integer("num_attention_heads"),
        kv_heads=section.integer("num_key_value_heads"),
        feed_forward=section.integer("intermediate_size"),
        sliding_window=section.integer("sliding_window"),
        rms_eps=section.number("rms_norm_eps"),
        rope_theta=theta,
        decoder_width=section.integer("decoder_dim"),
        upsample_rates=section.integers("upsample_rates"),
        upsampling_ratios=section.integers("upsampling_ratios"),
    )


def _optional(section: Section, key: str) -> int:
    return section.integer(key) if section.has(key) else 0
