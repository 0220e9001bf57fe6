"""The code predictor (MTP): the fifteen residual codes of a frame, one after the other, for many frames at once.

Each frame is a sequence of its own, sixteen places long; its keys and values are forgotten when the frame is done.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.errors import CheckpointError
from antiphon.model.config import DecoderConfig, TalkerConfig
from antiphon.model.decoder import DecoderLayer, head_norms, require_depth
from antiphon.model.frame_room import FrameRoom, Kept
from antiphon.model.kernels.choice import Kernels, kernels_for
from antiphon.model.layers import RMSNorm, SwiGLU
from antiphon.model.rotary import Rotary, Rotation
from antiphon.model.weights import Checkpoint

PREFIX = "talker.code_predictor."

# Given float32 logits (frames, codes) and the code group they are for (1 .. 15), gives int64 ids (frames).
ChooseCode = Callable[[Tensor, int], Tensor]


class _Trunk(nn.Module):
    """`layers` and `norm` as they lie under "talker.code_predictor.model."."""

    def __init__(self, config: DecoderConfig, kernels: Kernels) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(config, SwiGLU(config.width, config.feed_forward, kernels), kernels)
            for _ in range(config.layers)
        )
        self.norm = RMSNorm(config.width, config.rms_eps, kernels)


class CodePredictor:
    """One thread at a time: the frames' keys and values lie in buffers that every call uses again."""

    def __init__(
        self, config: DecoderConfig, trunk: _Trunk, embeddings: list[Tensor], heads: list[Tensor], rotary: Rotary
    ) -> None:
        """embeddings: a table for each code group, the first the Talker's own; heads: one for each group after it."""
        self._config, self._trunk, self._embeddings, self._heads = config, trunk, embeddings, heads
        positions = torch.arange(len(embeddings), dtype=torch.float32, device=embeddings[0].device)
        whole = rotary(positions, embeddings[0].dtype)
        pairs = list(zip(torch.split(whole.cos, 1), torch.split(whole.signed_sin, 1), strict=True))
        # As the steps of a FrameRoom.
        self._rotations = [Rotation(whole.cos[:2], whole.signed_sin[:2]), *(Rotation(*pair) for pair in pairs[2:])]
        self._keys_values = self._new_keys_values(1)
        # Of as many frames as the last ones were.
        self._frames, self._room = 1, FrameRoom.of(self._keys_values)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        talker: TalkerConfig,
        first_embedding: Tensor,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        kernels: Kernels | None = None,
    ) -> "CodePredictor":
        """first_embedding: the Talker's codec_embedding, which code 0 of a frame shares. kernels: unset, those of the
        device."""
        config = talker.code_predictor
        _require_fit(talker)
        require_depth(checkpoint, f"{PREFIX}model.", config)
        with torch.device("meta"):
            trunk = _Trunk(config, kernels or kernels_for(device))
        norms = head_norms(checkpoint, f"{PREFIX}model.", config, dtype=dtype, device=device)
        checkpoint.fill(trunk, f"{PREFIX}model.", dtype=dtype, device=device, given=norms)
        read = partial(checkpoint.tensor, shape=(config.vocabulary, config.width), dtype=dtype, device=device)
        embeddings = [read(f"{PREFIX}model.codec_embedding.{group}.weight") for group in range(talker.code_groups - 1)]
        heads = [read(f"{PREFIX}lm_head.{group}.weight") for group in range(talker.code_groups - 1)]
        return cls(config, trunk, [first_embedding, *embeddings], heads, Rotary(config, device))

    @property
    def residual_groups(self) -> int:
        return len(self._heads)

    def new_rows(self, frames: int) -> Tensor:
        """(frames, width), zeros of the Talker's type and on its device."""
        return self._embeddings[0].new_zeros(frames, self._config.width)

    def room_for(self, frames: int) -> FrameRoom:
        return FrameRoom.of(self._new_keys_values(frames))

    @torch.inference_mode()
    def predict(
        self, hidden: Tensor, first_codes: Tensor, choose: ChooseCode, room: FrameRoom | None = None
    ) -> tuple[Tensor, Tensor]:
        """hidden (frames, width) of the Talker, first_codes int64 (frames) -> codes int64 (frames, code groups) and the
        sum of their embeddings (frames, width), which the Talker reads next. Waits for no value, unless `choose` does.

        room: of `room_for` these frames, where keys and values are to lie; unset, in a buffer that moves when it must
        grow."""
        steps = (self._shared_room(hidden.shape[0]) if room is None else room).steps
        codes, embedded = [first_codes], [F.embedding(first_codes, self._embeddings[0])]
        last = self._forward(torch.stack((hidden, embedded[0]), 1), self._rotations[0], steps[0])
        for group, head in enumerate(self._heads, start=1):
            codes.append(choose(F.linear(last, head).float(), group))
            embedded.append(F.embedding(codes[-1], self._embeddings[group]))
            if group < len(self._heads):
                last = self._forward(embedded[-1].unsqueeze(1), self._rotations[group], steps[group])
        return torch.stack(codes, 1), torch.stack(embedded, 1).sum(1)

    def embedding_sums(self, codes: Tensor) -> Tensor:
        """codes int64 (frames, code groups) -> (frames, width), as `predict` gave it: a Talker rebuilt from codes."""
        groups = [F.embedding(codes[:, group], table) for group, table in enumerate(self._embeddings)]
        return torch.stack(groups, 1).sum(1)

    def _forward(self, rows: Tensor, rotation: Rotation, layers: Sequence[Kept]) -> Tensor:
        """rows (frames, new places, width) -> (frames, width) of the last place, normalised."""
        for layer, kept in zip(self._trunk.layers, layers, strict=True):
            rows = layer(rows, rotation, partial(_attend, kept))
        last: Tensor = self._trunk.norm(rows.select(1, rows.shape[1] - 1))
        return last

    def _shared_room(self, frames: int) -> FrameRoom:
        if frames > self._keys_values.shape[2]:
            self._keys_values = self._new_keys_values(frames)
            self._frames = 0
        if frames != self._frames:
            self._frames, self._room = frames, FrameRoom.of(self._keys_values.narrow(2, 0, frames))
        return self._room

    def _new_keys_values(self, frames: int) -> Tensor:
        """(layers, keys and values, frames, kv heads, places, head width)"""
        config, like = self._config, self._embeddings[0]
        return like.new_empty(config.layers, 2, frames, config.kv_heads, len(self._embeddings), config.head_width)


def _attend(kept: Kept, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """All (frames, new places, heads, head width)."""
    torch.stack((keys, values), out=kept.new)
    attended = F.scaled_dot_product_attention(
        queries.transpose(1, 2), kept.keys, kept.values, is_causal=queries.shape[1] > 1, enable_gqa=True
    )
    return attended.transpose(1, 2).flatten(2)


def _require_fit(talker: TalkerConfig) -> None:
    if talker.code_predictor.width != talker.text.width or talker.code_groups < 2:
        raise CheckpointError(
            f"config.json gives the code predictor width {talker.code_predictor.width} and {talker.code_groups} code "
            f"groups; expected the Talker's width {talker.text.width} and at least 2 groups."
        )
