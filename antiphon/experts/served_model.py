"""What trunks and shards must have in common, from the checkpoint that each of them reads."""

import torch

from antiphon.experts.table import ExpertModel
from antiphon.model.config import DecoderConfig
from antiphon.model.expert_fingerprint import expert_fingerprint
from antiphon.model.weights import Checkpoint


def expert_model(checkpoint: Checkpoint, prefix: str, config: DecoderConfig, dtype: torch.dtype) -> ExpertModel:
    """prefix: of the decoder, such as "thinker.model."; dtype: in which it is computed. Raises CheckpointError."""
    return ExpertModel(
        data_type=str(dtype).removeprefix("torch."),
        layers=config.layers,
        experts=config.experts,
        experts_per_token=config.experts_per_token,
        width=config.width,
        expert_width=config.expert_width,
        fingerprint=expert_fingerprint(checkpoint, prefix, config),
    )
