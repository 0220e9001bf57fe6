"""Parts of transformers' Talker by one name each."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TalkerParts:
    """Embeddings are of all sixteen codes of a frame, heads of the fifteen that the code predictor says."""

    text_projection: nn.Module
    hidden_projection: nn.Module
    text_model: nn.Module
    first_head: nn.Linear
    predictor: nn.Module
    embeddings: tuple[nn.Embedding, ...]
    residual_heads: tuple[nn.Linear, ...]

    @classmethod
    def of(cls, talker: nn.Module) -> "TalkerParts":
        """talker: `talker` of the whole model."""
        text_model = talker.get_submodule("model")
        predictor = talker.get_submodule("code_predictor.model")
        heads = talker.get_submodule("code_predictor.lm_head").children()
        embeddings = (
            text_model.get_submodule("codec_embedding"),
            *predictor.get_submodule("codec_embedding").children(),
        )
        return cls(
            text_projection=talker.get_submodule("text_projection"),
            hidden_projection=talker.get_submodule("hidden_projection"),
            text_model=text_model,
            first_head=cast(nn.Linear, talker.get_submodule("codec_head")),
            predictor=predictor,
            embeddings=tuple(cast(nn.Embedding, embedding) for embedding in embeddings),
            residual_heads=tuple(cast(nn.Linear, head) for head in heads),
        )

    def embedded(self, codes: Tensor, level: int) -> Tensor:
        """int64 (…) of one level, 0 to 15 -> (…, width)"""
        return F.embedding(codes, self.embeddings[level].weight)

    def code_rows(self, codes: Tensor) -> Tensor:
        """int64 (…, 16) -> the sum of their sixteen embeddings (…, width)"""
        rows = self.embedded(codes[..., 0], 0)
        for level in range(1, len(self.embeddings)):
            rows = rows + self.embedded(codes[..., level], level)
        return rows
