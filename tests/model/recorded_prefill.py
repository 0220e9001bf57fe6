"""What transformers' own generate hands to its Thinker and Talker decoders, and what it makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from antiphon.model.thinker import DeepstackRows
from tests.reference.reference_inputs import ReferenceInputs, ReferenceMessage
from tests.reference.transformers_reference import ReferenceTurn, TransformersReference


@dataclass(frozen=True)
class Prefill:
    """rows (S, width), positions (3, S) and, for the Thinker, where vision adds to the first layers."""

    rows: Tensor
    positions: Tensor
    visual: Tensor
    deepstack: tuple[Tensor, ...]

    def deepstack_of(self, first: int, stop: int, place: int) -> DeepstackRows | None:
        """The additions for prompt rows [first, stop), which are packed from `place` on."""
        chosen = (self.visual >= first) & (self.visual < stop)
        if not chosen.any():
            return None
        return DeepstackRows(self.visual[chosen] - first + place, tuple(rows[chosen] for rows in self.deepstack))


@dataclass(frozen=True)
class RecordedTurn:
    token_ids: Tensor
    thinker: Prefill
    talker: Prefill
    # (S, thinker width), what the Talker accepts of every prompt row.
    accepted: Tensor
    # The hidden rows that the Talker is steered with, one a frame: text, then silence.
    trailing_text: Tensor
    turn: ReferenceTurn


def record(reference: TransformersReference, messages: Sequence[ReferenceMessage], **options: Any) -> RecordedTurn:
    inputs = ReferenceInputs(reference.checkpoint).build(messages)
    model, calls = reference.model, {}

    def keep_first(name: str) -> Any:
        def keep(_module: Any, _arguments: Any, named: dict[str, Any], output: Any) -> None:
            calls.setdefault(name, (named, output))

        return keep

    modules = {"thinker": model.thinker.model.language_model, "talker": model.talker.model, "speech": model.talker}
    hooks = [module.register_forward_hook(keep_first(name), with_kwargs=True) for name, module in modules.items()]
    turn = reference.generate(inputs, **options)
    for hook in hooks:
        hook.remove()
    thinker = _prefill(calls["thinker"][0])
    return RecordedTurn(
        inputs["input_ids"][0],
        thinker,
        _prefill(calls["talker"][0]),
        _accepted(model, calls["thinker"][0]),
        calls["speech"][0]["trailing_text_hidden"][0],
        turn,
    )


def _prefill(named: dict[str, Any]) -> Prefill:
    mask = named.get("visual_pos_masks")
    visual = torch.empty(0, dtype=torch.int64) if mask is None else mask[0].nonzero().flatten()
    positions = named["position_ids"][-3:, 0].float()
    deepstack = tuple(named.get("deepstack_visual_embeds") or ())
    return Prefill(named["inputs_embeds"][0].clone(), positions, visual, deepstack)


@torch.no_grad()
def _accepted(model: Any, named: dict[str, Any]) -> Tensor:
    layer = model.config.talker_config.accept_hidden_layer
    positions = named["position_ids"][-3:]
    again = {key: named.get(key) for key in ("inputs_embeds", "visual_pos_masks", "deepstack_visual_embeds")}
    language_model = model.thinker.model.language_model
    out = language_model(**again, position_ids=positions, use_cache=False, output_hidden_states=[layer])
    rows: Tensor = out.hidden_states[layer][0]
    return rows
