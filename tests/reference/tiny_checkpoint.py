"""A tiny, seeded, random Qwen3-Omni checkpoint with every part, built by transformers and saved in the real layout.

Random weights make every rounding and every wrong position visible: an answer is equal to the reference only if the
whole computation is. All parameters are drawn here, because transformers leaves the Talker's experts uninitialised and
layer scales so small that state errors would hide behind them.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, Qwen2Tokenizer, Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

WIDTH = 64
TALKER_WIDTH = 48
CODEBOOK = 64
# transformers suppresses the last 1024 ids of the Talker's vocabulary, so it must be larger than that.
TALKER_VOCABULARY = CODEBOOK + 1024
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_pad|>",
)
MROPE = {"rope_type": "default", "rope_theta": 1_000_000, "mrope_section": [4, 2, 2], "interleaved": True}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1_000_000}
IMAGE_PIXELS = (32 * 32, 64 * 64)


def build_tiny_checkpoint(directory: Path, seed: int, nano: Path, *, max_shard_size: str = "1MB") -> Path:
    """Writes the checkpoint to `directory`, sharded as the real one is, and returns it; `nano` lends its template."""
    tokenizer = _tokenizer(nano)
    config = _config(tokenizer)
    torch.manual_seed(seed)
    model = Qwen3OmniMoeForConditionalGeneration(config).eval()
    _draw_parameters(model, seed)
    _calibrate_loudness(model, seed)
    model.generation_config.eos_token_id = config.im_end_token_id
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    (directory / "chat_template.jinja").write_text((nano / "chat_template.jinja").read_text())
    (directory / "processor_config.json").write_text(json.dumps(_processor_config(nano)))
    return directory


def _tokenizer(nano: Path) -> Qwen2Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    corpus = ["system\n", "user\n", "assistant\n", "system user assistant think"] * 40
    corpus += ["Please say what you hear and what you see, in one short sentence."] * 10
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(corpus, trainer)
    model = json.loads(bpe.to_str())["model"]
    specials = json.loads((nano / "tokenizer_config.json").read_text())["model_specific_special_tokens"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]],
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=specials,
    )
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS], special_tokens=True)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    return tokenizer


def _config(tokenizer: Qwen2Tokenizer) -> Qwen3OmniMoeConfig:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    roles = {role: tokenizer.encode(role)[0] for role in ("system", "user", "assistant")}
    media = {
        "audio_token_id": ids["<|audio_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "audio_start_token_id": ids["<|audio_start|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
    }
    return Qwen3OmniMoeConfig(
        thinker_config={**_thinker_config(), **media, "user_token_id": roles["user"]},
        talker_config={**_talker_config(), **media},
        code2wav_config=_code2wav_config(),
        enable_audio_output=True,
        im_start_token_id=ids["<|im_start|>"],
        im_end_token_id=ids["<|im_end|>"],
        tts_pad_token_id=ids["<tts_pad>"],
        tts_bos_token_id=ids["<tts_text_bos>"],
        tts_eos_token_id=ids["<tts_text_eod>"],
        system_token_id=roles["system"],
        user_token_id=roles["user"],
        assistant_token_id=roles["assistant"],
    )


def _thinker_config() -> dict[str, Any]:
    audio = {
        "num_mel_bins": 128,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "n_window": 50,
        "n_window_infer": 800,
        "conv_chunksize": 500,
        "downsample_hidden_size": 8,
        "output_dim": WIDTH,
        "max_source_positions": 1500,
    }
    vision = {
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    text = {
        "vocab_size": 512,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "max_position_embeddings": 65536,
        "rope_parameters": {**MROPE, "mrope_interleaved": True},
    }
    return {"audio_config": audio, "vision_config": vision, "text_config": text}


def _talker_config() -> dict[str, Any]:
    text = {
        "vocab_size": TALKER_VOCABULARY,
        "hidden_size": TALKER_WIDTH,
        "intermediate_size": 64,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "max_position_embeddings": 65536,
        "rope_parameters": MROPE,
    }
    code_predictor = {
        "vocab_size": CODEBOOK,
        "hidden_size": TALKER_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_code_groups": 16,
        "rope_parameters": PLAIN_ROPE,
    }
    return {
        "text_config": text,
        "code_predictor_config": code_predictor,
        "num_code_groups": 16,
        "thinker_hidden_size": WIDTH,
        "accept_hidden_layer": 4,
        "spatial_merge_size": 2,
        "codec_pad_id": CODEBOOK + 100,
        "codec_bos_id": CODEBOOK + 101,
        "codec_eos_token_id": CODEBOOK + 102,
        "codec_nothink_id": CODEBOOK + 107,
        "codec_think_bos_id": CODEBOOK + 108,
        "codec_think_eos_id": CODEBOOK + 109,
        "speaker_id": {"chelsie": CODEBOOK + 201, "ethan": CODEBOOK + 202, "aiden": CODEBOOK + 203},
    }


def _code2wav_config() -> dict[str, Any]:
    return {
        "codebook_size": CODEBOOK,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_quantizers": 16,
        "sliding_window": 8,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "decoder_dim": 64,
        "layer_scale_initial_scale": 0.01,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000},
    }


def _processor_config(nano: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((nano / "processor_config.json").read_text())
    for processor in ("image_processor", "video_processor"):
        config[processor]["size"] = {"shortest_edge": IMAGE_PIXELS[0], "longest_edge": IMAGE_PIXELS[1]}
    return config


@torch.no_grad()
def _draw_parameters(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.copy_(_drawn(name, parameter.shape, generator))


def _drawn(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    kind = name.rsplit(".", 1)[-1]
    if len(shape) == 1:
        mean, spread = {
            "alpha": (0, 0.3),
            "beta": (0, 0.3),
            "scale": (0.5, 0.2),
            "gamma": (0.5, 0.2),
            "bias": (0, 0.1),
        }.get(kind, (1, 0.1))
        return mean + spread * noise
    if "embed" in name:
        return noise
    fan_in = shape[-1] if "experts" in name else math.prod(shape[1:])
    # The codec's residual units would otherwise amplify float32 rounding above any useful tolerance.
    gain = 0.4 if ".conv1.conv." in name or ".conv2.conv." in name else 1.2
    return noise * (gain / math.sqrt(fan_in))


@torch.no_grad()
def _calibrate_loudness(model: Any, seed: int) -> None:
    """Scales the codec's last convolution so that random codes give a wave well inside its clamp."""
    unclamped: list[torch.Tensor] = []
    last = model.code2wav.decoder[-1]
    hook = last.register_forward_hook(lambda _module, _inputs, output: unclamped.append(output))
    generator = torch.Generator().manual_seed(seed)
    model.code2wav(torch.randint(0, CODEBOOK, (1, 16, 12), generator=generator))
    hook.remove()
    scale = 0.2 / unclamped[0].std()
    last.conv.weight.mul_(scale)
    last.conv.bias.mul_(scale)
