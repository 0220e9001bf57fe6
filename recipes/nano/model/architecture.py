"""The shape of nano, twenty million parameters of the Qwen3-Omni architecture, and how they begin."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration
from transformers.models.qwen3_omni_moe import configuration_qwen3_omni_moe as configurations

from recipes.nano.tokenizer.special_tokens import SpecialTokens, embedding_rows

WIDTH = 256
CODEBOOK_SIZE = 256
CODE_GROUPS = 16
# The Talker reads the Thinker's rows after this many layers.
ACCEPT_HIDDEN_LAYER = 3
# transformers never lets the Talker say any of the last 1024 ids of its vocabulary, but for the end; the real model
# keeps its control ids there, at these distances from the last code.
CONTROL_IDS = 1024
SPEAKER_IDS = {"chelsie": CODEBOOK_SIZE + 201, "ethan": CODEBOOK_SIZE + 202, "aiden": CODEBOOK_SIZE + 203}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
# Of 32 frequencies, 12 turn with time, 10 with height, 10 with width.
MROPE = {**PLAIN_ROPE, "mrope_section": [12, 10, 10], "interleaved": True}


@dataclass(frozen=True)
class _MediaIds:
    """What the Thinker and the Talker both know of sounds and pictures in a prompt."""

    audio_token_id: int
    image_token_id: int
    video_token_id: int
    audio_start_token_id: int
    vision_start_token_id: int
    position_id_per_seconds: int = 13
    seconds_per_chunk: int = 2


@dataclass(frozen=True)
class _Attention:
    """Of every decoder: the Thinker's, the Talker's and the code predictor's."""

    hidden_size: int = WIDTH
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64


def nano_config(tokens: SpecialTokens, vocabulary_size: int) -> Qwen3OmniMoeConfig:
    """vocabulary_size: rows of the Thinker's embedding, at least the tokenizer's tokens."""
    media = _MediaIds(
        audio_token_id=tokens.audio_pad,
        image_token_id=tokens.image_pad,
        video_token_id=tokens.video_pad,
        audio_start_token_id=tokens.audio_start,
        vision_start_token_id=tokens.vision_start,
    )
    return Qwen3OmniMoeConfig(
        thinker_config=_thinker(media, tokens.user, vocabulary_size),
        talker_config=_talker(media),
        code2wav_config=_code2wav(),
        enable_audio_output=True,
        im_start_token_id=tokens.im_start,
        im_end_token_id=tokens.im_end,
        tts_pad_token_id=tokens.tts_pad,
        tts_bos_token_id=tokens.tts_bos,
        tts_eos_token_id=tokens.tts_eos,
        system_token_id=tokens.system,
        user_token_id=tokens.user,
        assistant_token_id=tokens.assistant,
    )


def config_for(tokenizer: Path) -> Qwen3OmniMoeConfig:
    """The configuration that fits the tokenizer in this folder."""
    return nano_config(SpecialTokens.from_folder(tokenizer), embedding_rows(tokenizer))


def build_model(config: Qwen3OmniMoeConfig, seed: int) -> Qwen3OmniMoeForConditionalGeneration:
    """All of nano in float32 on the CPU, drawn from `seed`; leaves torch's own random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3OmniMoeForConditionalGeneration(config)
        _draw_parameters(model)
    return model


def _thinker(media: _MediaIds, user: int, vocabulary_size: int) -> configurations.Qwen3OmniMoeThinkerConfig:
    text = configurations.Qwen3OmniMoeTextConfig(
        **asdict(_Attention()),
        vocab_size=vocabulary_size,
        num_hidden_layers=4,
        intermediate_size=256,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=128,
        norm_topk_prob=True,
        max_position_embeddings=32_768,
        rope_parameters={**MROPE, "mrope_interleaved": True},
        tie_word_embeddings=False,
    )
    return configurations.Qwen3OmniMoeThinkerConfig(
        text_config=text, audio_config=_audio(), vision_config=_vision(), user_token_id=user, **asdict(media)
    )


def _audio() -> configurations.Qwen3OmniMoeAudioEncoderConfig:
    return configurations.Qwen3OmniMoeAudioEncoderConfig(
        num_mel_bins=128,
        downsample_hidden_size=48,
        d_model=192,
        encoder_layers=4,
        encoder_attention_heads=4,
        encoder_ffn_dim=768,
        output_dim=WIDTH,
        n_window=50,
        n_window_infer=800,
        conv_chunksize=500,
        max_source_positions=1500,
    )


def _vision() -> configurations.Qwen3OmniMoeVisionEncoderConfig:
    return configurations.Qwen3OmniMoeVisionEncoderConfig(
        depth=4,
        hidden_size=64,
        num_heads=4,
        intermediate_size=192,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        num_position_embeddings=256,
        out_hidden_size=WIDTH,
        deepstack_visual_indexes=[0, 1, 2],
    )


def _talker(media: _MediaIds) -> configurations.Qwen3OmniMoeTalkerConfig:
    text = configurations.Qwen3OmniMoeTalkerTextConfig(
        **asdict(_Attention()),
        vocab_size=CODEBOOK_SIZE + CONTROL_IDS,
        num_hidden_layers=4,
        intermediate_size=384,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=96,
        shared_expert_intermediate_size=192,
        norm_topk_prob=True,
        max_position_embeddings=32_768,
        rope_parameters=dict(MROPE),
    )
    return configurations.Qwen3OmniMoeTalkerConfig(
        text_config=text.to_dict(),  # transformers 5.17 takes only dictionaries here
        code_predictor_config=_code_predictor().to_dict(),
        num_code_groups=CODE_GROUPS,
        thinker_hidden_size=WIDTH,
        accept_hidden_layer=ACCEPT_HIDDEN_LAYER,
        spatial_merge_size=2,
        codec_pad_id=CODEBOOK_SIZE + 100,
        codec_bos_id=CODEBOOK_SIZE + 101,
        codec_eos_token_id=CODEBOOK_SIZE + 102,
        codec_nothink_id=CODEBOOK_SIZE + 107,
        codec_think_bos_id=CODEBOOK_SIZE + 108,
        codec_think_eos_id=CODEBOOK_SIZE + 109,
        speaker_id=dict(SPEAKER_IDS),
        **asdict(media),
    )


def _code_predictor() -> configurations.Qwen3OmniMoeTalkerCodePredictorConfig:
    return configurations.Qwen3OmniMoeTalkerCodePredictorConfig(
        **asdict(_Attention()),
        vocab_size=CODEBOOK_SIZE,
        num_code_groups=CODE_GROUPS,
        num_hidden_layers=3,
        intermediate_size=384,
        max_position_embeddings=64,
        rope_parameters=dict(PLAIN_ROPE),
    )


def _code2wav() -> configurations.Qwen3OmniMoeCode2WavConfig:
    return configurations.Qwen3OmniMoeCode2WavConfig(
        codebook_size=CODEBOOK_SIZE,
        num_quantizers=CODE_GROUPS,
        hidden_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
        sliding_window=6,
        layer_scale_initial_scale=0.1,
        decoder_dim=256,
        upsample_rates=[8, 5, 4, 3],
        upsampling_ratios=[2, 2],
        max_position_embeddings=8000,
        rope_parameters=dict(PLAIN_ROPE),
    )


# transformers' own draw, normal of 0.02, suits what is convolved after the codes; elsewhere it suits a far wider model.
_KEPT = ("code2wav.decoder.", "code2wav.upsample.")
_EMBEDDINGS = ("embed_tokens.", "codec_embedding.", "code_embedding.", "pos_embed.")
# Matrices that end a residual branch: small, so that a deep stack begins near the identity.
_BRANCH_ENDS = ("o_proj.", "out_proj.", "down_proj", "fc2.", "attn.proj.")


@torch.no_grad()
def _draw_parameters(model: nn.Module) -> None:
    """Normal, with a deviation that keeps the size of activations; biases and norms stay as transformers sets them."""
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):
            parameter.fill_(0.1)  # a branch of ConvNeXt; transformers begins it at 1e-6, which learns late
        elif parameter.dim() > 1 and not name.startswith(_KEPT):
            parameter.normal_(0.0, _deviation(name, parameter))


def _deviation(name: str, weight: Tensor) -> float:
    if any(kind in name for kind in _EMBEDDINGS):
        return 0.1
    # Experts are stacked (expert, out, in); convolutions are (out, in, kernel…).
    inputs = weight.shape[-1] if "experts" in name else weight[0].numel()
    return _gain(name) / math.sqrt(inputs)


def _gain(name: str) -> float:
    if any(end in name for end in _BRANCH_ENDS):
        return 0.4
    if name.endswith("mlp.gate.weight"):
        return 0.5  # routers begin undecided
    return 1.4 if "conv2d" in name else 1.0
