"""transformers' own model with a checkpoint's tensors, read one by one straight to their device.

`from_pretrained` reads files only, and would hold fused experts twice while it converts them; random weights have no
files, and those of the real size fill most of a GPU.
"""

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoConfig, Qwen3OmniMoeForConditionalGeneration

from antiphon.model.placement import Placement
from antiphon.model.weights import Checkpoint, load_experts

# Where transformers keeps parts of the Thinker, and where they lie on disk.
_MOVED: Final = {
    "thinker.model.audio_tower.": "thinker.audio_tower.",
    "thinker.model.visual.": "thinker.visual.",
    "thinker.model.language_model.": "thinker.model.",
}


def stock_model(directory: Path, where: Placement) -> Any:
    """As `from_pretrained` gives it, ready to generate."""
    config = AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model: Any = Qwen3OmniMoeForConditionalGeneration(config)
    _compute_buffers(model, where)
    checkpoint = Checkpoint(directory)
    for name, module in model.named_modules():
        if module._parameters:
            _fill(module, _on_disk(f"{name}."), checkpoint, where)
    return model.eval().requires_grad_(requires_grad=False)


def _fill(module: nn.Module, prefix: str, checkpoint: Checkpoint, where: Placement) -> None:
    """The module's own parameters, not those of its children."""
    tensors: dict[str, Tensor] = {}
    if prefix.endswith(".experts."):
        count = len(module.get_parameter("down_proj"))
        fused = load_experts(checkpoint, prefix, 0, count, dtype=where.dtype, device=where.device)
        tensors = dict(zip(("gate_up_proj", "down_proj"), fused, strict=True))
    else:
        names = [name for name, parameter in module._parameters.items() if parameter is not None]
        read = checkpoint.load([prefix + name for name in names], dtype=where.dtype, device=where.device)
        tensors = {name: read[prefix + name] for name in names}
    for name, tensor in tensors.items():
        module._parameters[name] = nn.Parameter(tensor, requires_grad=False)


def _on_disk(prefix: str) -> str:
    for held, stored in _MOVED.items():
        if prefix.startswith(held):
            return stored + prefix.removeprefix(held)
    return prefix


def _compute_buffers(model: Any, where: Placement) -> None:
    """What a checkpoint does not hold: transformers computes it where weights are initialised."""
    for module in model.modules():
        if not module._buffers:
            continue
        for name, buffer in module._buffers.items():
            # Always of their own types: frequencies in bfloat16 would be wrong.
            module._buffers[name] = torch.empty_like(buffer, device=where.device)
        model._init_weights(module)
