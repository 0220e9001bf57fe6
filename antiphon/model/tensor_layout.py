"""Every tensor of a Qwen3-Omni checkpoint, by its name on disk, with its shape: what config.json says of the weights.

The names and shapes are those of the published checkpoint, where each expert's matrices are tensors of their own.
"""

from collections.abc import Iterator
from itertools import chain, pairwise

from antiphon.model.config import (
    AudioEncoderConfig,
    Code2WavConfig,
    DecoderConfig,
    OmniConfig,
    TalkerConfig,
    ThinkerConfig,
    VisionEncoderConfig,
)

Named = Iterator[tuple[str, tuple[int, ...]]]

# Convolutions that halve the mel bins.
_HALVINGS = 3
_RESIDUAL_UNITS = 3


def tensor_shapes(config: OmniConfig) -> dict[str, tuple[int, ...]]:
    """Name on disk -> shape; without Talker and Code2Wav where the configuration has none."""
    parts = [_below("thinker.", _thinker(config.thinker))]
    if config.talker is not None:
        parts.append(_below("talker.", _talker(config.talker)))
    if config.code2wav is not None:
        parts.append(_below("code2wav.", _code2wav(config.code2wav)))
    return dict(chain.from_iterable(parts))


def _thinker(config: ThinkerConfig) -> Named:
    text = config.text
    yield "model.embed_tokens.weight", (text.vocabulary, text.width)
    yield "lm_head.weight", (text.vocabulary, text.width)
    yield from _below("model.", _decoder(text))
    yield from _below("audio_tower.", _audio(config.audio))
    yield from _below("visual.", _vision(config.vision))


def _talker(config: TalkerConfig) -> Named:
    text = config.text
    yield "model.codec_embedding.weight", (text.vocabulary, text.width)
    yield "codec_head.weight", (text.vocabulary, text.width)
    for name in ("text_projection", "hidden_projection"):
        yield from _linear(f"{name}.linear_fc1", config.thinker_width, text.feed_forward)
        yield from _linear(f"{name}.linear_fc2", text.feed_forward, text.width)
    yield from _below("model.", _decoder(text))
    table = (config.code_predictor.vocabulary, config.code_predictor.width)
    for group in range(config.code_groups - 1):
        yield f"code_predictor.model.codec_embedding.{group}.weight", table
        yield f"code_predictor.lm_head.{group}.weight", table
    yield from _below("code_predictor.model.", _decoder(config.code_predictor))


def _decoder(config: DecoderConfig) -> Named:
    yield "norm.weight", (config.width,)
    for layer in range(config.layers):
        yield from _below(f"layers.{layer}.", _decoder_layer(config))


def _decoder_layer(config: DecoderConfig) -> Named:
    queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{name}.weight", (config.width,)
    for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield f"self_attn.{name}.weight", (rows, config.width)
    yield "self_attn.o_proj.weight", (config.width, queries)
    for name in ("q_norm", "k_norm"):
        yield f"self_attn.{name}.weight", (config.head_width,)
    if not config.experts:
        yield from _below("mlp.", _gated(config.width, config.feed_forward))
        return
    yield "mlp.gate.weight", (config.experts, config.width)
    for expert in range(config.experts):
        yield from _below(f"mlp.experts.{expert}.", _gated(config.width, config.expert_width))
    if config.shared_expert_width:
        yield "mlp.shared_expert_gate.weight", (1, config.width)
        yield from _below("mlp.shared_expert.", _gated(config.width, config.shared_expert_width))


def _gated(width: int, hidden_width: int) -> Named:
    yield "gate_proj.weight", (hidden_width, width)
    yield "up_proj.weight", (hidden_width, width)
    yield "down_proj.weight", (width, hidden_width)


def _audio(config: AudioEncoderConfig) -> Named:
    for index, channels_in in enumerate((1, config.conv_channels, config.conv_channels), start=1):
        yield f"conv2d{index}.weight", (config.conv_channels, channels_in, 3, 3)
        yield f"conv2d{index}.bias", (config.conv_channels,)
    bins = config.mel_bins
    for _ in range(_HALVINGS):
        bins = -(-bins // 2)
    yield "conv_out.weight", (config.width, config.conv_channels * bins)
    for layer in range(config.layers):
        place = f"layers.{layer}."
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            yield from _norm(place + name, config.width)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{place}self_attn.{name}", config.width, config.width)
        yield from _linear(f"{place}fc1", config.width, config.feed_forward)
        yield from _linear(f"{place}fc2", config.feed_forward, config.width)
    yield from _norm("ln_post", config.width)
    yield from _linear("proj1", config.width, config.width)
    yield from _linear("proj2", config.width, config.output_width)


def _vision(config: VisionEncoderConfig) -> Named:
    width, patch = config.width, config.patch_size
    yield "patch_embed.proj.weight", (width, config.in_channels, config.temporal_patch_size, patch, patch)
    yield "patch_embed.proj.bias", (width,)
    yield "pos_embed.weight", (config.position_count, width)
    for block in range(config.depth):
        place = f"blocks.{block}."
        for name in ("norm1", "norm2"):
            yield from _norm(place + name, width)
        yield from _linear(f"{place}attn.qkv", width, 3 * width)
        yield from _linear(f"{place}attn.proj", width, width)
        yield from _linear(f"{place}mlp.linear_fc1", width, config.feed_forward)
        yield from _linear(f"{place}mlp.linear_fc2", config.feed_forward, width)
    merged = width * config.merge_size**2
    yield from _below("merger.", _merger(merged, width, config.output_width))
    for index in range(len(config.deepstack_blocks)):
        yield from _below(f"merger_list.{index}.", _merger(merged, merged, config.output_width))


def _merger(merged: int, norm_width: int, output_width: int) -> Named:
    yield from _norm("ln_q", norm_width)
    yield from _linear("mlp.0", merged, merged)
    yield from _linear("mlp.2", merged, output_width)


def _code2wav(config: Code2WavConfig) -> Named:
    yield "code_embedding.weight", (config.codebook_size * config.quantizers, config.width)
    yield from _below("pre_transformer.", _pre_transformer(config))
    for index, ratio in enumerate(config.upsampling_ratios):
        yield from _below(f"upsample.{index}.", _upsample(config.width, ratio))
    widths = [config.decoder_width // 2**level for level in range(len(config.upsample_rates) + 1)]
    yield from _convolution("decoder.0.conv", (widths[0], config.width, 7))
    for index, (pair, rate) in enumerate(zip(pairwise(widths), config.upsample_rates, strict=True), start=1):
        yield from _below(f"decoder.{index}.block.", _decoder_block(*pair, rate))
    yield from _snake(f"decoder.{len(widths)}", widths[-1])
    yield from _convolution(f"decoder.{len(widths) + 1}.conv", (1, widths[-1], 7))


def _pre_transformer(config: Code2WavConfig) -> Named:
    head_width = config.width // config.heads
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads, "v_proj": config.kv_heads}
    yield "norm.weight", (config.width,)
    for layer in range(config.layers):
        place = f"layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{place}{name}.weight", (config.width,)
        for name in ("self_attn_layer_scale", "mlp_layer_scale"):
            yield f"{place}{name}.scale", (config.width,)
        for name, count in heads.items():
            yield f"{place}self_attn.{name}.weight", (count * head_width, config.width)
        yield f"{place}self_attn.o_proj.weight", (config.width, config.heads * head_width)
        yield from _below(f"{place}mlp.", _gated(config.width, config.feed_forward))


def _upsample(width: int, ratio: int) -> Named:
    yield from _convolution("0.conv", (width, width, ratio))
    yield from _convolution("1.dwconv.conv", (width, 1, 7))
    yield from _norm("1.norm", width)
    yield from _linear("1.pwconv1", width, 4 * width)
    yield from _linear("1.pwconv2", 4 * width, width)
    yield "1.gamma", (width,)


def _decoder_block(channels_in: int, channels_out: int, rate: int) -> Named:
    yield from _snake("0", channels_in)
    yield "1.conv.weight", (channels_in, channels_out, 2 * rate)  # a transposed convolution has its inputs first
    yield "1.conv.bias", (channels_out,)
    for unit in range(2, 2 + _RESIDUAL_UNITS):
        for layer, kernel in ((1, 7), (2, 1)):
            yield from _snake(f"{unit}.act{layer}", channels_out)
            yield from _convolution(f"{unit}.conv{layer}.conv", (channels_out, channels_out, kernel))


def _snake(name: str, channels: int) -> Named:
    yield f"{name}.alpha", (channels,)
    yield f"{name}.beta", (channels,)


def _convolution(name: str, shape: tuple[int, int, int]) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", (shape[0],)


def _linear(name: str, width_in: int, width_out: int) -> Named:
    yield f"{name}.weight", (width_out, width_in)
    yield f"{name}.bias", (width_out,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _below(prefix: str, named: Named) -> Named:
    return ((prefix + name, shape) for name, shape in named)
