"""Connectionist temporal classification (Graves et al., 2006), unrolled over time.

torch's own waits for the lengths on the host, which a CUDA graph forbids; this one has fixed shapes and never waits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Of a path that cannot be. Not infinite: its gradient would be.
_NEVER = -1e30


def ctc_loss(scores: Tensor, targets: Tensor, rows: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """Negative log-likelihoods (batch,); zero, without gradient, where the rows are too few for the target.

    scores: log-probabilities float32 (batch, time, symbols), of which the first `rows` int64 (batch,) count; targets:
    int64 (batch, longest), of which the first `lengths` int64 (batch,) count.
    """
    states = _with_blanks(targets, lengths, blank)
    emitted = scores.gather(2, states[:, None].expand(-1, scores.shape[1], -1))
    forward = _last_forward_variables(emitted, _may_skip(states, blank), rows)
    end = forward.gather(1, 2 * lengths[:, None])
    before = forward.gather(1, (2 * lengths[:, None] - 1).clamp(min=0)).masked_fill(lengths[:, None] == 0, _NEVER)
    losses = -torch.logaddexp(end, before)[:, 0]
    return torch.where(losses < -_NEVER / 2, losses, torch.zeros_like(losses))


def _with_blanks(targets: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """(batch, 2 longest + 1): a blank before, between and after the symbols."""
    batch, longest = targets.shape
    states = targets.new_full((batch, 2 * longest + 1), blank)
    is_symbol = torch.arange(longest, device=targets.device) < lengths[:, None]
    states[:, 1::2] = targets.masked_fill(~is_symbol, blank)
    return states


def _may_skip(states: Tensor, blank: int) -> Tensor:
    """Where a path may come from two states before: from one symbol to another over the blank between."""
    before = F.pad(states, (2, 0), value=blank)[:, :-2]
    return (states != blank) & (states != before)


def _last_forward_variables(emitted: Tensor, may_skip: Tensor, rows: Tensor) -> Tensor:
    """(batch, states) log-likelihoods of all that is emitted, by the state of the last row."""
    paths = F.pad(emitted[:, 0, :2], (0, emitted.shape[2] - 2), value=_NEVER)
    for time in range(1, emitted.shape[1]):
        stepped = F.pad(paths, (1, 0), value=_NEVER)[:, :-1]
        skipped = F.pad(paths, (2, 0), value=_NEVER)[:, :-2].masked_fill(~may_skip, _NEVER)
        arrived = torch.stack((paths, stepped, skipped)).logsumexp(dim=0) + emitted[:, time]
        paths = torch.where((time < rows)[:, None], arrived.clamp(min=_NEVER), paths)
    return paths
