"""The fused kernels as one choice. Importing this imports Triton."""

from antiphon.model.kernels.choice import Kernels
from antiphon.model.kernels.fused_attention import attend
from antiphon.model.kernels.fused_experts import WARM_UP_PAIRS_PER_EXPERT, FusedExperts
from antiphon.model.kernels.fused_heads import turn_heads
from antiphon.model.kernels.fused_router import choose_experts
from antiphon.model.kernels.fused_rows import add_behind_gate, add_normalise, gated, normalise

FUSED = Kernels(
    normalise=normalise,
    add_normalise=add_normalise,
    gated=gated,
    add_behind_gate=add_behind_gate,
    turn_heads=turn_heads,
    choose_experts=choose_experts,
    experts=FusedExperts,
    warm_up_pairs_per_expert=WARM_UP_PAIRS_PER_EXPERT,
    attention=attend,
)
