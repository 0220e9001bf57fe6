"""One training step: loss, gradients, update. On a GPU the whole of it is captured as a CUDA graph and replayed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .settings import TrainingSettings

WARM_UP_CALLS = 3
AVERAGE_OVER_STEPS = 50


@dataclass(frozen=True)
class Loss:
    """`total` is minimised; `parts` float (n), in the order of the stage's names, are reported."""

    total: Tensor
    parts: Tensor


Compute = Callable[[], Loss]


class Optimiser:
    """AdamW whose learning rate is a tensor, so that a captured step sees it change; only matrices decay."""

    def __init__(self, parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.device, self._most_norm = self.parameters[0].device, settings.most_gradient_norm
        self._rate = torch.tensor(settings.learning_rate, device=self.device)
        matrices = [parameter for parameter in self.parameters if parameter.dim() >= 2]
        vectors = [parameter for parameter in self.parameters if parameter.dim() < 2]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        on_gpu = self.device.type == "cuda"
        self.adam = torch.optim.AdamW(groups, self._rate, settings.betas, eps=1e-8, fused=True, capturable=on_gpu)

    def set_rate(self, rate: float) -> None:
        self._rate.fill_(rate)
        for group in self.adam.param_groups:  # loading a state puts tensors of its own there
            group["lr"] = self._rate

    def minimise(self, loss: Tensor) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self._most_norm, foreach=True)
        self.adam.step()


class Step:
    """Calls `compute`, minimises, and keeps a moving average of the parts in `averages`, which several steps share."""

    def __init__(self, compute: Compute, optimiser: Optimiser, averages: Tensor) -> None:
        self._compute, self._optimiser, self._averages = compute, optimiser, averages
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._averages.device.type != "cuda":
            self._run()
        elif self._graph is None:
            self._graph = self._captured()
        else:
            self._graph.replay()

    def _run(self) -> None:
        loss = self._compute()
        self._optimiser.minimise(loss.total)
        parts = loss.parts.detach()
        started = self._averages.isfinite()
        moved = self._averages.lerp(parts, 1 / AVERAGE_OVER_STEPS)
        self._averages.copy_(torch.where(started, moved, parts))

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Capturing needs some calls before it, on a stream of their own: they train, too."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph
