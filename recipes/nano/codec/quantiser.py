"""The residual vector quantiser: each level's code names the nearest vector to what the levels before left over."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantiserShape:
    levels: int = 16
    codebook_size: int = 256
    latent_width: int = 64
    # The width at which Code2Wav takes a frame.
    output_width: int = 192


class Quantiser(nn.Module):
    codebooks: Tensor

    def __init__(self, shape: QuantiserShape) -> None:
        super().__init__()
        self.shape = shape
        codebooks = torch.randn(shape.levels, shape.codebook_size, shape.latent_width) * 0.01
        # No gradient reaches the vectors: they follow the means of what chose them.
        self.register_buffer("codebooks", codebooks)
        self.output = nn.Linear(shape.latent_width, shape.output_width)

    def encode(self, latents: Tensor) -> Tensor:
        """(…, latent width) -> codes (…, levels)"""
        left_over, codes = latents, []
        for codebook in self.codebooks:
            code = nearest(left_over, codebook)
            codes.append(code)
            left_over = left_over - codebook[code]
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """(…, levels) -> the sum of the vectors that they name (…, latent width)"""
        return torch.stack([book[codes[..., level]] for level, book in enumerate(self.codebooks)]).sum(0)

    def code_embeddings(self) -> Tensor:
        """(levels x codebook size, output width): the table whose mean over a frame's codes is that frame's output.

        Code2Wav takes means where the quantiser takes sums, so every vector counts as many times as there are levels.
        """
        vectors = self.codebooks @ self.output.weight.T * self.shape.levels + self.output.bias
        return vectors.flatten(0, 1)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The row of the codebook (size, width) that is closest to each vector (…, width)."""
    distances = codebook.square().sum(-1) - 2 * vectors @ codebook.T  # but for the vector's own length
    return distances.argmin(-1)
