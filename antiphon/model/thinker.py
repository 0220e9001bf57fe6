"""The Thinker: embedding rows of text and media to hidden rows and logits, for the packed rows of one step."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.attention import PagedKeyValues, StepAttention
from antiphon.model.config import OmniConfig
from antiphon.model.decoder import Decoder
from antiphon.model.experts import ExpertsFactory, local_experts
from antiphon.model.weights import Checkpoint

PREFIX = "thinker.model."


@dataclass(frozen=True, slots=True)
class DeepstackRows:
    """What the vision encoder adds to the outputs of the first layers."""

    # Places of image and video placeholders in the packed step, int64 (n); None adds to every row.
    places: Tensor | None
    # One (n, width) for each of the first layers.
    additions: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class ThinkerOutput:
    # (rows, width), after the final norm.
    final: Tensor
    # (rows, width), what the Talker accepts; None when the checkpoint has no Talker.
    accepted: Tensor | None


class Thinker:
    """Holds its own weights only; who calls it runs it under torch.inference_mode."""

    def __init__(self, decoder: Decoder, embedding: Tensor, head: Tensor, accept_layer: int | None) -> None:
        self._decoder, self._embedding, self._head, self._accept_layer = decoder, embedding, head, accept_layer

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        config: OmniConfig,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        experts: ExpertsFactory | None = None,
    ) -> "Thinker":
        """experts: where each layer's experts are; unset reads them all from the checkpoint into this process."""
        text = config.thinker.text
        chosen = experts or local_experts(checkpoint, PREFIX, text, dtype=dtype, device=device)
        table = (text.vocabulary, text.width)
        return cls(
            Decoder.load(checkpoint, PREFIX, text, chosen, dtype=dtype, device=device),
            checkpoint.tensor(f"{PREFIX}embed_tokens.weight", table, dtype=dtype, device=device),
            checkpoint.tensor("thinker.lm_head.weight", table, dtype=dtype, device=device),
            _accept_layer(config),
        )

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids int64 (rows) -> (rows, width)"""
        return F.embedding(token_ids, self._embedding)

    def forward(
        self,
        rows: Tensor,
        positions: Tensor,
        batch: StepAttention,
        keys_values: PagedKeyValues,
        deepstack: DeepstackRows | None = None,
    ) -> ThinkerOutput:
        """rows (rows, width), positions float32 (3, rows)."""
        accepted = rows if self._accept_layer == 0 else None

        def after_layer(layer: int, output: Tensor) -> Tensor:
            nonlocal accepted
            if layer + 1 == self._accept_layer:
                accepted = output
            if deepstack is None or layer >= len(deepstack.additions):
                return output
            # A new tensor: the accepted rows are those before the addition.
            if deepstack.places is None:
                return output + deepstack.additions[layer]
            return output.index_add(0, deepstack.places, deepstack.additions[layer])

        final = self._decoder(rows, positions, batch, keys_values, after_layer)
        return ThinkerOutput(final, accepted)

    @property
    def width(self) -> int:
        return self._embedding.shape[1]

    def logits(self, final_rows: Tensor) -> Tensor:
        """final_rows (n, width) -> float32 (n, vocabulary)"""
        return F.linear(final_rows, self._head).float()


def _accept_layer(config: OmniConfig) -> int | None:
    """Index k means the output of layer k - 1 before its deepstack addition; 0 the embedding rows."""
    if config.talker is None:
        return None
    layer, layers = config.talker.accept_hidden_layer, config.thinker.text.layers
    if not 0 <= layer < layers:
        raise CheckpointError(
            f"config.json lets the Talker accept hidden layer {layer}; expected one below the Thinker's {layers}. "
            "The configuration is of different models."
        )
    return layer
