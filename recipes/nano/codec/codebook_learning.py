"""How the quantiser learns: codebooks follow the means of what chooses them, and codes that nobody chooses begin anew.

The moving averages are those of VQ-VAE (arXiv 1711.00937, appendix A); restarts and dropout of levels those of
SoundStream (arXiv 2107.03312, section III-C).
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from .quantiser import Quantiser, nearest

_FOLLOW = 0.02
# A code chosen this much more rarely than the average code is dead; it begins anew a little rarer than the average.
_DEAD_SHARE, _REBORN_SHARE = 0.03, 0.3
# So many of a batch's items are quantised by their first levels only, so that each level refines those before it.
_DROPOUT = 0.5


@dataclass(frozen=True)
class Quantised:
    """Gradients reach the latents as if they had not been quantised."""

    # (batch, frames, output width), what Code2Wav takes
    frames: Tensor
    # scalar: how far the latents are from their vectors, over all levels
    commitment: Tensor


class CodebookLearning(nn.Module):
    """Moving averages of how often each code is chosen, and of the sum of what chooses it, for each step."""

    uses: Tensor
    sums: Tensor

    def __init__(self, quantiser: Quantiser) -> None:
        super().__init__()
        self.register_buffer("uses", torch.zeros(quantiser.codebooks.shape[:2]))
        self.register_buffer("sums", torch.zeros_like(quantiser.codebooks))

    def go_on_from(self, quantiser: Quantiser, frames_a_step: int) -> None:
        """As if every code of a trained quantiser had been chosen equally often until now."""
        self.uses.fill_(frames_a_step / quantiser.shape.codebook_size)
        self.sums.copy_(quantiser.codebooks * self.uses[..., None])

    def forward(self, quantiser: Quantiser, latents: Tensor) -> Quantised:
        """latents (batch, frames, latent width); the codebooks have moved when this returns."""
        counting = _levels_that_count(latents, quantiser.shape.levels)
        left_over = latents.flatten(0, 1)
        total, commitment = torch.zeros_like(left_over), latents.new_zeros(())
        for level, codebook in enumerate(quantiser.codebooks):
            code = nearest(left_over.detach(), codebook)
            vectors = codebook[code]
            commitment = commitment + (counting[level] * (left_over - vectors).square()).mean()
            total = total + counting[level] * vectors
            self._follow(level, codebook, code, left_over.detach())
            left_over = left_over - vectors
        sums = pass_gradient(latents, total.view_as(latents))
        return Quantised(cast(Tensor, quantiser.output(sums)), commitment)

    @torch.no_grad()
    def _follow(self, level: int, codebook: Tensor, code: Tensor, chosen_by: Tensor) -> None:
        size, average = len(codebook), len(chosen_by) / len(codebook)
        uses = code.new_zeros(size, dtype=torch.float32).index_add_(0, code, torch.ones_like(code, dtype=torch.float32))
        sums = torch.zeros_like(codebook).index_add_(0, code, chosen_by)
        uses = self.uses[level].lerp(uses, _FOLLOW)
        sums = self.sums[level].lerp(sums, _FOLLOW)
        dead = uses < _DEAD_SHARE * average
        others = chosen_by[torch.randint(len(chosen_by), (size,), device=code.device)]
        uses = uses.masked_fill(dead, _REBORN_SHARE * average)
        sums = torch.where(dead[:, None], others * _REBORN_SHARE * average, sums)
        self.uses[level].copy_(uses)
        self.sums[level].copy_(sums)
        codebook.copy_(sums / uses[:, None])


def pass_gradient(latents: Tensor, vectors: Tensor, share: Tensor | float = 1.0) -> Tensor:
    """The vectors, with a share of the gradient for the latents (straight-through, arXiv 1308.3432)."""
    return vectors.detach() + share * (latents - latents.detach())


def _levels_that_count(latents: Tensor, levels: int) -> Tensor:
    """(levels, batch x frames, 1) of zeros and ones: all levels of some items, only the first ones of others."""
    batch, frames, _ = latents.shape
    fewer = torch.randint(1, levels + 1, (batch,), device=latents.device)
    dropped = torch.rand(batch, device=latents.device) < _DROPOUT
    counting = fewer.masked_fill(~dropped, levels)[:, None].expand(batch, frames).flatten()
    return (torch.arange(levels, device=latents.device)[:, None] < counting).to(latents.dtype)[..., None]
